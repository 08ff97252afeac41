"""GazeLSTM, Ego4D's baseline: a trainable ResNet-18, and a bidirectional LSTM over seven frames.

Published: 66.07 mAP on the Ego4D test set, and 71.92 when ResNet-18 and LSTM start from Gaze360's weights
(import --as gaze360, then --weights FILE).
Run: python bench.py --recipe gazelstm
"""

version = 1
method = "GazeLSTM"
published = "GazeLSTM"

backbone = dict(type="gaze_resnet18", frozen=False)
head = dict(type="gazelstm")

# Absent frames are filled from present ones, because windows of pixels have no mask.
windows = dict(radius=3, stride=dict(train=13, val=13, test=1))
views = dict(train=("original",), test=("original",))

training = dict(epochs=40, batch_size=64, lr=5e-4, weight_decay=0.0, class_weight="balanced", seed=3407)
smoothing = None
