"""Ensemble: the weighted mean of its members' logits, smoothed along the track.

Weights and window are fitted on validation. InternLSTM's authors reached 81 mAP on the Ego4D test set by fusing with
gaze models and a median along the track. They published neither weights nor window. A member is a recipe's name with
its changes, such as internlstm+head=gru. --set members=internlstm_flip_tta,interngru_flip_tta names other members.
Run: python bench.py --recipe ensemble
"""

version = 2
method = "Ensemble"
published = "PCIE_LAM"

members = ("internlstm_flip_tta", "gazelstm", "gazepose")
smoothing = dict(filter="median", window=None)
