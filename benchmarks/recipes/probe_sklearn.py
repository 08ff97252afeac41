"""Linear probe, as the literature on frozen backbones fits it: scikit-learn's logistic regression.

Not published. The optimum of its loss, so it has no spread over seeds; `probe` descends towards one by Adam.
Run: python bench.py --recipe probe_sklearn
"""

_base_ = ["probe.py"]

version = 1
method = "Linear probe, logistic regression**"
published = None
head = dict(_delete_=True, type="probe_sklearn")
