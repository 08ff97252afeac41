"""InternLSTM**, smoothed along the track: the median of neighbouring frames' scores, the window chosen on validation.

Its authors' first step from 77 to 81 mAP on the Ego4D test set; they did not publish the window. It shares its training
with internlstm_flip where validation is scored at the same stride: smoothing needs neighbours, so stride 1.
Run: python bench.py --recipe internlstm_flip_tta_smooth
"""

_base_ = ["internlstm_flip_tta.py"]

version = 1
method = "InternLSTM** smoothed"
published = None
windows = dict(stride=dict(val=1))
smoothing = dict(_delete_=True, filter="median", window=None)
