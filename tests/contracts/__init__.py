"""Contract checks of backbones, heads and detectors, for built-in parts and plug-ins.

>>> from tests.contracts import check_head
>>> check_head(dict(type="my_head"))
"""

from tests.contracts.checks import (
    FIXED_FEATURES,
    check_backbone,
    check_detector,
    check_head,
    golden_tensor,
    made_up_inputs,
    uniform,
)

__all__ = [
    "FIXED_FEATURES",
    "check_backbone",
    "check_detector",
    "check_head",
    "golden_tensor",
    "made_up_inputs",
    "uniform",
]
