"""InternLSTM**, smoothed along the track: the median of neighbouring frames' scores, window chosen on validation.

The first step of its authors from 77 to 81 mAP on the Ego4D test set. They did not publish the window. It shares its
training with internlstm_flip; the window is chosen on validation scored at the stride of test.
Run: python bench.py --recipe internlstm_flip_tta_smooth
"""

_base_ = ["internlstm_flip_tta.py"]

version = 2
method = "InternLSTM** smoothed"
published = None
smoothing = dict(_delete_=True, filter="median", window=None)
