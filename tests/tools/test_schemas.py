"""The published JSON Schemas are up to date, take all shipped files, and refuse what the program refuses."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rows.schema import read_result
from registry import UserError
from tests.conftest import HOME
from tools.schemas import FOLDER, schemas, text_of
from zoo.cards import FOLDER as CARDS
from zoo.cards import load_card

RECORDS = sorted((HOME / "benchmarks" / "records").glob("*/*/result.json")) + sorted(
    (HOME / "benchmarks" / "records" / "synthlam").glob("*.json")
)


def errors(schema: str, value: Any) -> list[str]:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    found = json.loads((FOLDER / schema).read_text())
    validator.check_schema(found)
    return [error.json_path for error in validator(found).iter_errors(value)]


@pytest.mark.parametrize("name", schemas())
def test_files_are_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_text() == text_of(schemas()[name]), "run python -m tools.schemas"


def test_keys_are_described() -> None:
    result = schemas()["record.schema.json"]["$defs"]["Result"]["properties"]
    assert result["seeds"]["description"] == "A reference row, of which nothing is drawn, has the one entry 0."
    assert result["config"]["$ref"] == "#/$defs/ConfigSection"
    assert "expected calibration error" in json.dumps(schemas()["record.schema.json"]).lower()


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: str(path.relative_to(HOME)))
def test_committed_records_are_valid(path: Path) -> None:
    assert errors("record.schema.json", json.loads(path.read_text())) == []


def test_there_are_records() -> None:
    assert len(RECORDS) > 5


def test_shipped_cards_and_models_are_valid() -> None:
    for path in CARDS.glob("*.json"):
        assert errors("card.schema.json", {"name": path.stem, **json.loads(path.read_text())}) == []
    for path in (HOME / "zoo" / "weights").glob("*_*/config.json"):
        config = json.loads(path.read_text())
        if "views" in config:
            assert errors("model.schema.json", config) == []


def edited(value: Any, change: Callable[[Any], object]) -> Any:
    changed = copy.deepcopy(value)
    change(changed)
    return changed


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda r: r.pop("seeds"), "$"),
        (lambda r: r.update(seeds="all"), "$.seeds"),
        (lambda r: r["splits"]["val"]["metrics"].pop("mAP"), "$.splits.val.metrics"),
        (lambda r: r["splits"]["val"]["metrics"]["mAP"].update(mean="high"), "$.splits.val.metrics.mAP.mean"),
        (lambda r: r["config"].update(version=1.5), "$.config.version"),
        (lambda r: r["environment"].pop("python"), "$.environment"),
    ],
)
def test_what_the_program_refuses_is_not_valid(tmp_path: Path, change: Callable, path: str) -> None:
    spoilt = edited(json.loads(RECORDS[0].read_text()), change)
    assert [where for where in errors("record.schema.json", spoilt) if where.startswith(path)]
    (tmp_path / "result.json").write_text(json.dumps(spoilt))
    with pytest.raises(UserError):
        read_result(tmp_path / "result.json")


def test_a_card_without_figures_is_refused_by_both(tmp_path: Path) -> None:
    card = json.loads((CARDS / "internvit_nano.json").read_text())
    del card["figures"]
    assert errors("card.schema.json", {"name": "x", **card})
    (tmp_path / "x.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="figures"):
        load_card(tmp_path / "x.json")
