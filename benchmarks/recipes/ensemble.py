"""Ensemble: the weighted mean of its members' logits, smoothed along the track.

Weights and window are fitted on validation. The last steps of InternLSTM's authors, to 81 mAP on the Ego4D test set:
fused with gaze models, and a median along the track; they published neither weights nor window. A member is a row: a
recipe's name with its changes, if any, such as internlstm+head=gru; others than these with
--set members=internlstm_flip_tta,interngru_flip_tta
Run: python bench.py --recipe ensemble
"""

version = 1
method = "Ensemble"
published = "PCIE_LAM"

members = ("internlstm_flip_tta", "gazelstm", "gazepose")
smoothing = dict(filter="median", window=None)
