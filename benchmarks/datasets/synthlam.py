"""SynthLAM: rendered faces, shipped with the project. The scale fits two CPU cores and two minutes."""

type = "synthlam"

# InternViT-6B needs 11 GB of weights and a GPU; its small sibling takes its place, and every table says so.
stand_in = dict(internvit_6b=dict(type="internvit_nano"))

# SynthLAM has 15 frames a second and few clips: more of them are examples than at Ego4D's 13.
windows = dict(stride=dict(train=2, val=2, test=1))

# Two to three thousand windows cannot fill heads of 50 million parameters.
heads = dict(
    lstm=dict(projection=128, hidden=96, layers=2, mlp=(128, 64, 64), dropout=0.5),
    gru=dict(projection=128, hidden=96, layers=2, mlp=(128, 64, 64), dropout=0.5),
    transformer=dict(width=128, depth=2, heads=4, mlp=256, dropout=0.3),
)
training = dict(epochs=20, batch_size=64)
