"""Which rows are found again: records from before a key existed, and rows that such a key makes different."""

import json

import pytest

from benchmarks.config.resolve import resolve
from benchmarks.rows.identity import recipe_identity
from benchmarks.table.table import RECORDS


@pytest.mark.parametrize("name", ["internlstm", "probe", "interngru_flip_tta"])
def test_rows_from_before_a_key_existed_are_found(name: str) -> None:
    record = json.loads((RECORDS / "synthlam" / f"{name}.json").read_text(encoding="utf-8"))
    assert recipe_identity(resolve(name), record["dataset"], None)["config"] == record["settings"]["config"]


def test_later_keys_make_another_row_unless_at_their_defaults() -> None:
    dataset = {"name": "ego4d", "checksum": None, "splits": {}}
    usual = recipe_identity(resolve("gazelstm", "ego4d", settings=["init=none"]), dataset, None)
    assert not {"augment", "init", "published_faults"} & usual["config"].keys()
    assert not {"schedule_floor", "schedule_unit"} & usual["config"]["training"].keys()
    own = recipe_identity(resolve("gazepose", "ego4d", settings=["published_faults=true"]), dataset, None)["config"]
    assert (own["augment"], own["init"], own["published_faults"]) == ({"flip": 0.5, "crop": 0.8}, "gaze360", True)
    assert (own["training"]["schedule_floor"], own["training"]["schedule_unit"]) == (5e-6, "epoch")
