"""GazeLSTM, Ego4D's baseline: a trainable ResNet-18, and a bidirectional LSTM over seven frames.

Published: 66.07 mAP on the Ego4D test set, from random weights. gazelstm_gaze360 starts from Gaze360's.
Run: python bench.py --recipe gazelstm
"""

version = 2
method = "GazeLSTM"
published = "GazeLSTM"

backbone = dict(type="gaze_resnet18", frozen=False)
head = dict(type="gazelstm")
init = "random"

# Absent frames are filled from present ones, because windows of pixels have no mask.
windows = dict(radius=3, stride=dict(train=13, val=13, test=1))
views = dict(train=("original",), test=("original",))

# The class weights are those of not looking and of looking.
training = dict(epochs=40, batch_size=64, lr=5e-4, weight_decay=0.0, class_weight=(0.136, 0.864), seed=3407)
smoothing = None
