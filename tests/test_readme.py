"""What the README and the docs show is rendered from records; their commands are held in test_docs.py."""

import json
import re
from pathlib import Path

from tools.speed.harness import reached
from tools.update_docs import (
    PERFORMANCE,
    README,
    RESULTS,
    SPEED,
    SPLITS,
    TABLE,
    render_performance,
    render_readme,
    render_results,
)

HOME = Path(__file__).resolve().parent.parent
TEXT = README.read_text(encoding="utf-8")


def test_table_is_that_of_the_committed_records() -> None:
    assert len(TABLE.findall(TEXT)) == 1
    assert render_readme(TEXT) == TEXT


def test_performance_is_that_of_the_committed_records() -> None:
    text = PERFORMANCE.read_text(encoding="utf-8")
    assert "cpu" in [marks[2] for marks in SPEED.finditer(text)]
    assert render_performance(text) == text


def test_results_are_those_of_the_committed_records() -> None:
    text = RESULTS.read_text(encoding="utf-8")
    assert len(SPLITS.findall(text)) == len(TABLE.findall(text)) == 1
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
        'pip install ".[test]" && pytest',
    ]
