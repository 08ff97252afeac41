"""Every registered data set holds the contract. One that is not shipped has a fixture `<name>_tree`, a small root."""

from pathlib import Path

import pytest

from registry import DATASETS
from tests.contracts.parts import check_dataset

SHIPPED = {"synthlam"}


@pytest.mark.parametrize("name", DATASETS.names())
def test_contract(name: str, request: pytest.FixtureRequest) -> None:
    root = None if name in SHIPPED else request.getfixturevalue(f"{name}_tree")
    check_dataset({"type": name, "root": root})


@pytest.fixture
def ego4d_tree(lam_tree: Path) -> Path:
    return lam_tree
