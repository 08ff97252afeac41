"""SynthLAM: rendered faces, shipped with the project. Scaled for two and a half minutes on two CPU cores."""

type = "synthlam"

# InternViT-6B needs 11 GB of weights and a GPU. A small InternViT stands in for it, and every table says so.
stand_in = dict(internvit_6b=dict(type="internvit_nano"))

# As published for train. Neighbouring frames are much alike: a test key frame every two thirds of a second, and a third
# of the frames to encode, give a row nearly as narrow an interval as all of them.
windows = dict(stride=dict(train=13, val=20, test=20))

# A frozen trunk of GazePose has seen rendered heads, as internvit_nano has.
backbones = dict(gaze_resnet18=dict(size=48, pretrained="renders"))

# Some thousand windows are too few for heads of 50 million parameters.
heads = dict(
    lstm=dict(projection=128, hidden=96, layers=2, mlp=(128, 64, 64), dropout=0.5),
    gru=dict(projection=128, hidden=96, layers=2, mlp=(128, 64, 64), dropout=0.5),
    transformer=dict(width=128, depth=2, heads=4, mlp=256, dropout=0.3),
    gazepose=dict(width=64, feed_forward=256, encoder_layers=2, decoder_layers=2),
)
training = dict(epochs=20, batch_size=64)

# The renderer's ground truth with an estimator's errors.
priors = dict(type="synthlam")

# Trainable backbones take about ten minutes on one core. Crops are about 50 pixels wide, so 48 lose little and cost a
# twentieth of 224. Published values that this scale replaces:
pixels = dict(
    backbones=dict(gaze_resnet18=dict(size=48)),
    # Stands in for Gaze360's weights, which may not be shipped: the same network and task, trained on renders.
    init=dict(gaze360="renders"),
    training=dict(
        epochs=6,
        batch_size=16,
        # A short training: a higher rate, lowered step by step. By epoch it would have six values.
        lr=3e-4,
        schedule="cosine",
        schedule_floor=0.0,
        schedule_unit="step",
        # GazeLSTM's two numbers are Ego4D's shares. All rows of SynthLAM take the shares of its own frames.
        class_weight="balanced",
    ),
)
