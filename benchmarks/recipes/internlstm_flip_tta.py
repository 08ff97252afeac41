"""InternLSTM**: InternLSTM*, with the probabilities of original and mirrored test frames averaged.

Published: 77.18 mAP on the Ego4D test set. It shares its training with internlstm_flip.
Run: python bench.py --recipe internlstm_flip_tta
"""

_base_ = ["internlstm_flip.py"]

version = 1
method = "InternLSTM**"
published = "InternLSTM**"
views = dict(test=("original", "flipped"))
