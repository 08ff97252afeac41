"""Linear probe: the centre frame's features and one linear layer. What every temporal head has to beat.

Not published.
Run: python bench.py --recipe probe
"""

_base_ = ["internlstm_flip_tta.py"]

version = 1
method = "Linear probe**"
published = None
head = dict(_delete_=True, type="probe")
