"""SynthLAM: rendered faces, shipped with the project. Scaled for two minutes on two CPU cores."""

type = "synthlam"

# InternViT-6B needs 11 GB of weights and a GPU. A small InternViT stands in for it, and every table says so.
stand_in = dict(internvit_6b=dict(type="internvit_nano"))

# SynthLAM has 15 frames per second and few clips, so its strides are smaller than Ego4D's 13.
windows = dict(stride=dict(train=2, val=2, test=1))

# Two to three thousand windows are too few for heads of 50 million parameters.
heads = dict(
    lstm=dict(projection=128, hidden=96, layers=2, mlp=(128, 64, 64), dropout=0.5),
    gru=dict(projection=128, hidden=96, layers=2, mlp=(128, 64, 64), dropout=0.5),
    transformer=dict(width=128, depth=2, heads=4, mlp=256, dropout=0.3),
    gazepose=dict(width=64, feed_forward=256, encoder_layers=2, decoder_layers=2),
)
training = dict(epochs=20, batch_size=64)

# The renderer's ground truth with an estimator's errors.
priors = dict(type="synthlam")

# Trainable backbones take seven minutes on one core. Crops are about 50 pixels wide, so 48 lose little and cost a
# twentieth of 224. Four consecutive windows have 12 frames, four random ones 28. Small batches give more steps.
# Published values that this scale replaces:
pixels = dict(
    backbones=dict(gaze_resnet18=dict(size=48)),
    # Stands in for a recipe's start: SynthLAM must run without a download, and Gaze360's weights may not be shipped.
    init=dict(gaze360="random"),
    # Random crops differ from window to window: 28 frames to encode in place of 12, more than twice the time.
    augment=dict(flip=0.0, crop=None),
    training=dict(
        epochs=4,
        batch_size=8,
        block=4,
        # A short training from random weights: a higher rate, lowered step by step. By epoch it would have four values.
        lr=3e-4,
        schedule="cosine",
        schedule_floor=0.0,
        schedule_unit="step",
        # GazeLSTM's two numbers are Ego4D's shares. All rows of SynthLAM take the shares of its own frames.
        class_weight="balanced",
    ),
)
