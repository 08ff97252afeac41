"""Every registered backbone that needs no file of weights holds the contract."""

import pytest

from registry import BACKBONES
from tests.contracts import check_backbone

# Weights of other people. Their own tests check them with small networks in the same file formats.
NEED_WEIGHTS = {"hf", "internvit", "internvit_300m", "internvit_6b", "timm"}
NEED_FACES = {"face_geometry"}  # checked in test_face_geometry.py


@pytest.mark.parametrize("name", [name for name in BACKBONES.names() if name not in NEED_WEIGHTS | NEED_FACES])
def test_contract(name: str) -> None:
    check_backbone({"type": name})
