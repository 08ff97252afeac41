"""Linear probe: one linear layer on the key frame's features. The baseline for every temporal head.

Not published.
Run: python bench.py --recipe probe
"""

_base_ = ["internlstm_flip_tta.py"]

version = 1
method = "Linear probe**"
published = None
head = dict(_delete_=True, type="probe")
