"""InternLSTM*: InternLSTM trained on the original and the mirrored frames together.

Published: 76.94 mAP on the Ego4D test set.
Run: python bench.py --recipe internlstm_flip
"""

_base_ = ["internlstm.py"]

version = 1
method = "InternLSTM*"
published = "InternLSTM*"
views = dict(train=("original", "flipped"))
