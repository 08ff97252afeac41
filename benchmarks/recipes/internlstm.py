"""InternLSTM: a frozen InternViT-6B on each frame, and a bidirectional LSTM over seven frames.

Published: 76.57 mAP on the Ego4D test set (PCIE_LAM / InternLSTM, Ego4D Looking-At-Me challenge 2024).
Run: python bench.py --recipe internlstm
"""

version = 1
method = "InternLSTM"
published = "InternLSTM"

backbone = dict(type="internvit_6b")
head = dict(type="lstm", projection=1000, hidden=1000, layers=2, mlp=(1024, 512, 512), dropout=0.5)

# Windows of seven frames. Every 13th frame of a track is a key frame in training and validation, every frame in test.
windows = dict(radius=3, stride=dict(train=13, val=13, test=1))
views = dict(train=("original",), test=("original",))

training = dict(epochs=40, batch_size=64, lr=5e-4, weight_decay=0.0, class_weight="balanced", seed=3407)
smoothing = None
