"""What every backbone and every head must hold, as checks that a plug-in's author can call too.

>>> from tests.contracts import check_head
>>> check_head(dict(type="my_head"))
"""

from tests.contracts.checks import check_backbone, check_head, golden_tensor, made_up_inputs, uniform

__all__ = ["check_backbone", "check_head", "golden_tensor", "made_up_inputs", "uniform"]
