"""What the README and the docs show is rendered from records; their commands are held in test_docs.py."""

import json
import re
from pathlib import Path

import pytest

from tools.record_tables import ACCURACY, MARKS, PAGES, PEOPLE, PHOTOGRAPHS, render_records
from tools.speed.harness import reached
from tools.update_docs import (
    PERFORMANCE,
    README,
    RESULTS,
    SPEED,
    render_performance,
    render_readme,
    render_results,
)
from zoo.cards import load_cards

HOME = Path(__file__).resolve().parent.parent
TEXT = README.read_text(encoding="utf-8")


def test_table_is_that_of_the_committed_records() -> None:
    assert [marks[2] for marks in MARKS.finditer(TEXT)] == ["table"]
    assert render_readme(TEXT) == TEXT


def test_performance_is_that_of_the_committed_records() -> None:
    text = PERFORMANCE.read_text(encoding="utf-8")
    assert "cpu" in [marks[2] for marks in SPEED.finditer(text)]
    assert render_performance(text) == text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_records_are_those_of_the_committed_records(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert MARKS.search(text)
    assert render_records(text) == text


def test_the_card_of_geometry_has_the_figures_of_the_records() -> None:
    names = {"looks found": "sensitivity", "false looks": "false rate"}
    for each in load_cards()["geometry"].figures:
        record = json.loads((HOME / each.source).read_text())
        figures = record["models"]["geometry"]["groups"]["all"]["figures"]
        assert each.value == round(figures[names.get(each.metric, each.metric)]["value"], 3)
        assert each.split.startswith(f"{record['set']['agreed']} faces of {record['set']['people']} people in ")


def test_accuracy_has_the_figures_of_the_records() -> None:
    text = " ".join(ACCURACY.read_text(encoding="utf-8").split())
    for path, words in ((PHOTOGRAPHS, "photographs"), (PEOPLE, "videos")):
        record = json.loads(path.read_text())
        figures = record["models"]["geometry"]["groups"]["all"]["figures"]
        found, false = (round(100 * figures[name]["value"]) for name in ("sensitivity", "false rate"))
        assert f"In {words} of people it finds {found} % of the looks, and mistakes {false} % of the other" in text
    of_group = json.loads(PHOTOGRAPHS.read_text())["models"]["geometry"]["groups"]["head under 15°"]
    others = of_group["faces"] - of_group["looking"]
    called = round(of_group["figures"]["false rate"]["value"] * others)
    assert f"Of {others} heads turned less than 15° that do not look, `geometry` mistakes {called} for looks" in text


def test_results_are_those_of_the_committed_records() -> None:
    text = RESULTS.read_text(encoding="utf-8")
    assert [marks[2] for marks in MARKS.finditer(text)] == ["table", "splits", "crossed"]
    assert render_results(text) == text


def test_committed_speeds_are_what_they_must_be() -> None:
    records = [json.loads(path.read_text()) for path in (HOME / "benchmarks/records/speed/cpu").glob("*.json")]
    names = {"test_index", "train_index", "train_index_again", "map", "map_csv"}
    assert names | {"command_score", "command_fuse", "command_submit"} <= {record["name"] for record in records}
    for record in records:
        assert reached(record), record["name"]
    growth = next(record["facts"] for record in records if record["name"] == "test_index")
    assert growth["exponent"] < 1.1 and growth["frames"][-1] == 1_000_000 and growth["seconds"][-1] <= 5


def test_ci_finds_both_commands() -> None:
    blocks = re.findall(r"^```shell\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert [block.strip() for block in blocks] == [
        "pip install . && python bench.py --recipe internlstm_flip_tta",
        'pip install ".[test]" && pytest -n auto --dist loadfile',
    ]
