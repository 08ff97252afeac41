"""What every backbone, head and detector must hold, as checks that a plug-in's author can call too.

>>> from tests.contracts import check_head
>>> check_head(dict(type="my_head"))
"""

from tests.contracts.checks import check_backbone, check_detector, check_head, golden_tensor, made_up_inputs, uniform

__all__ = ["check_backbone", "check_detector", "check_head", "golden_tensor", "made_up_inputs", "uniform"]
