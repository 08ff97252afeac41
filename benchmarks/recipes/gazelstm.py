"""GazeLSTM, Ego4D's baseline: a ResNet-18 that trains, and a bidirectional LSTM over seven frames.

Published: 66.07 mAP on the Ego4D test set, and 71.92 where the ResNet-18 and the LSTM start from Gaze360's
(import --as gaze360, then --weights FILE).
Run: python bench.py --recipe gazelstm
"""

version = 1
method = "GazeLSTM"
published = "GazeLSTM"

backbone = dict(type="gaze_resnet18", frozen=False)
head = dict(type="gazelstm")

# Absent frames are filled from present ones: windows of pixels have no other way to say that a frame is not there.
windows = dict(radius=3, stride=dict(train=13, val=13, test=1))
views = dict(train=("original",), test=("original",))

training = dict(epochs=40, batch_size=64, lr=5e-4, weight_decay=0.0, class_weight="balanced", seed=3407)
smoothing = None
