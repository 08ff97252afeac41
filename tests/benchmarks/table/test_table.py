import csv
import io
import json
import re
from pathlib import Path

import pytest

from benchmarks.rows.schema import SCHEMA, Result
from benchmarks.table import table

METRIC = {"mean": 0.8123, "std": 0.0123, "interval": [0.78, 0.84], "per_seed": [0.8, 0.8246]}


def result(name: str = "internlstm", **changes: object) -> Result:
    """A record as `result.json` holds it, with made-up figures."""
    split = {
        "windows": 10, "positives": 3, "clips": 2, "stride": 1, "views": {},
        "confusion": dict.fromkeys(("true_positives", "false_positives", "true_negatives", "false_negatives"), 2.5),
        "metrics": dict.fromkeys(("mAP", "AP.looking", "AP.not_looking", "accuracy"), METRIC),
    }  # fmt: skip
    record: dict = {
        "schema": SCHEMA, "name": name, "settings": {}, "seeds": [1, 2], "training": [{}, {}], "counts": {},
        "config": {
            "recipe": "internlstm", "version": 1, "method": "InternLSTM", "published": "InternLSTM", "limit": None,
            "changes": [], "dataset": "synthlam",
        },
        "dataset": {
            "name": "synthlam", "note": "synthetic data", "checksum": None,
            "splits": {name: {"rows": 10, "crops": 9, "clips": 2, "sha256": name} for name in ("test", "val")},
        },
        "splits": {"test": split, "val": split},
        "backbone": {
            "type": "internvit_nano", "stands_in_for": "internvit_6b", "parameters": 1_500_000,
            "weights": {"origin": "shipped", "licence": "Apache-2.0", "sha256": None, "random_init": False},
        },
        "head": {"type": "lstm", "parameters": 420_000}, "seconds": {"features": 41.2, "training": 9.6, "scoring": 1.0},
        "environment": {
            "python": "3.11", "packages": {}, "platform": "Linux", "processor": "a", "cores": 2, "device": "cpu",
            "code": {"commit": "8812e03" + "0" * 33, "dirty": False},
        },
        "date": "2026-11-22T10:00:00+00:00",
    }  # fmt: skip
    for path, value in changes.items():
        node, *keys = record, *path.split("__")
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value
    return record  # type: ignore[return-value]


def cells(text: str, method: str) -> list[str]:
    line = next(line for line in text.splitlines() if re.match(rf"\| {re.escape(method)} +\|", line))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_in_print() -> None:
    text = table.render(table.rows([(result(), "this machine")]))
    assert cells(text, "InternLSTM") == [
        "InternLSTM", "internlstm", "internvit_nano for internvit_6b", "lstm", "76.57", "81.23 ± 1.23",
        "78.00 to 84.00",
        "81.23", "2", "1.50 M + 0.42 M", "41 + 10", "this machine, 8812e03",
    ]  # fmt: skip
    assert "synthlam test mAP" in text


def test_cited_rows_stand_without_measured_figures() -> None:
    text = table.render(table.rows([]))
    for method, value in (
        ("GazeLSTM", "66.07"),
        ("GazeLSTM + Gaze360", "71.92"),
        ("GazePose", "76.29"),
        ("InternLSTM", "76.57"),
        (r"InternLSTM\*", "76.94"),
        (r"InternLSTM\*\*", "77.18"),
    ):
        row = cells(text, method)
        assert row[4] == value
        assert not any(row[5:])


def test_order_is_that_of_the_published_table() -> None:
    rows = table.rows(
        [(result("probe", config__method="Linear probe**", config__published=None), "x"), (result(), "x")]
    )
    cited = ["GazeLSTM", "GazeLSTM + Gaze360", "GazePose", "InternLSTM", "InternLSTM*", "InternLSTM**"]
    assert [row.method for row in rows] == [*cited, "Linear probe**"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (dict(backbone__weights={"random_init": True}), "(random init)"),
        (dict(config__limit=50), "(partial)"),
        (dict(environment__code={"commit": "8812e03" + "0" * 33, "dirty": True}), "8812e03+"),
        (dict(dataset__name="ego4d", splits={"val": result()["splits"]["val"]}), "ego4d val mAP"),
    ],
)
def test_what_a_row_must_confess(changes: dict, word: str) -> None:
    assert word in table.render(table.rows([(result(**changes), "x")]))


def test_a_random_start_has_a_note() -> None:
    rows = [table.rows([(result(backbone__weights={"random_init": start}), "x")]) for start in (True, False)]
    with_note, without = ("\n".join(table.notes(each)) for each in rows)
    assert "starts from random weights, also where the published method starts from others" in with_note
    assert "random" not in without


def test_a_changed_recipe_answers_to_no_cited_figure() -> None:
    rows = table.rows([(result("internlstm+head=gru", config__changes=["head=gru"]), "x")])
    measured = next(row for row in rows if row.recipe)
    assert measured.published_map is None
    assert measured.method == "InternLSTM (changed)"


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("InternViT-6B-448px-V1-5", "InternLSTM"),
        ("mine", "InternLSTM (changed)"),
        ("InternViT-6B-448px-V1-5 (4 layers x 48, published are 45 x 3200)", "InternLSTM (changed)"),
    ],
)
def test_naming_a_copy_of_the_published_backbone_is_no_change(name: str, method: str) -> None:
    weights = {"name": name, "random_init": False}
    record = result(config__changes=["weights=copy"], backbone__type="internvit_6b", backbone__weights=weights)
    assert [row.method for row in table.rows([(record, "x")]) if row.recipe] == [method]


def test_naming_the_weights_of_the_recipes_start_is_no_change() -> None:
    """GazePose starts from Gaze360's weights, which are a file; with other weights it is another method."""
    config = {
        "method": "GazePose", "published": "GazePose", "limit": None, "changes": ["weights=mine.safetensors"],
        "init": "gaze360",
    }  # fmt: skip
    head: dict = {"type": "gazepose", "parameters": 1, "initialised_from": {"file": "mine.safetensors", "kind": None}}

    def found() -> list[tuple[str, float | None]]:
        rows = table.rows([(result("gazepose", config=config, head=head), "x")])
        return [(row.method, row.published_map) for row in rows if row.recipe]

    assert found() == [("GazePose (changed)", None)]
    head["initialised_from"]["kind"] = "gaze360"
    assert found() == [("GazePose", 76.29)]
    config["changes"].append("checkpoint=best.safetensors")
    config["checkpoint"] = "best.safetensors"
    assert found() == [("GazePose (checkpoint)", 76.29)]
    config["changes"].pop()
    del config["checkpoint"]
    config["init"] = None  # --set init=none
    config["changes"] = ["weights=mine.safetensors", "init=None"]
    assert found() == [("GazePose (changed)", None)]


CLIPS = ("a", "b", "c", "d")


def with_clips(name: str, per_seed: list[float], steps: tuple[float, ...], **changes: object) -> Result:
    """A record whose mAP without clip k is `steps[k]` above the seed's own."""
    record = result(name, **changes)
    metric = {"mean": sum(per_seed) / len(per_seed), "std": 0.01, "interval": [0.7, 0.9], "per_seed": per_seed}
    without = {clip: [value + step for value in per_seed] for clip, step in zip(CLIPS, steps, strict=True)}
    test = record["splits"]["test"]
    record["splits"]["test"] = {**test, "metrics": {**test["metrics"], "mAP": metric}, "without_clip": without}
    return record


def test_rows_that_cannot_be_told_from_the_best_are_marked() -> None:
    """Each difference from the best is one number a seed and clip, so whether 0 is inside can be seen."""
    even, uneven = (0.001, -0.001, 0.001, -0.001), (0.02, -0.02, 0.02, -0.02)
    records = [
        with_clips("best", [0.800, 0.804], even),
        with_clips("near", [0.799, 0.804], even),  # by 0.001 and 0: t = 1 with one degree of freedom
        with_clips("far", [0.700, 0.7041], even),  # by 0.1 and 0.0999
        with_clips("erratic", [0.700, 0.7041], uneven),  # as far, but each clip moves it by 6 points
        with_clips("partial", [0.9, 0.9], even, config__limit=5),
        result("old"),
    ]
    records[4]["splits"]["test"]["windows"] = 5
    ours = {row.recipe: row.tied for row in table.rows([(record, "x") for record in records]) if row.recipe}
    # The old record has 81.23, the most of all, but not what it takes to compare.
    assert set(ours.values()) == {None}
    records.pop()
    ours = {row.recipe: row.tied for row in table.rows([(record, "x") for record in records]) if row.recipe}
    assert ours == {"best": None, "near": True, "far": False, "erratic": True, "partial": None}
    rows = table.rows([(record, "x") for record in records])
    text = table.render(rows)
    marked = {line.split("|")[2].strip() for line in text.splitlines() if "†" in line}
    assert marked == {"near", "erratic"}
    assert any(note.startswith("†: ") and "includes 0" in note for note in table.notes(rows))
    assert json.loads(table.render(rows, "json"))[-1].keys() >= {"tied"}


def test_without_ties_there_is_no_note() -> None:
    assert not any("†" in note for note in table.notes(table.rows([(result(), "x")])))


def test_one_class_only_is_no_figure() -> None:
    none = {"mean": None, "std": None, "interval": None, "per_seed": [None, None]}
    record = result()
    record["splits"]["test"]["metrics"]["mAP"] = none  # type: ignore[typeddict-item]
    assert "undefined: one class only" in table.render(table.rows([(record, "x")]))


def test_machine_formats_hold_figures_as_they_are() -> None:
    rows = table.rows([(result(), "x")])
    read = next(line for line in csv.DictReader(io.StringIO(table.render(rows, "csv"))) if line["recipe"])
    assert (float(read["map"]), float(read["map_low"]), int(read["backbone_parameters"])) == (0.8123, 0.78, 1_500_000)
    listed = json.loads(table.render(rows, "json"))
    assert next(row for row in listed if row["recipe"])["map"] == 0.8123


@pytest.mark.parametrize(("form", "mark"), [("latex", r"\begin{tabular}"), ("html", "<table>")])
def test_other_forms(form: str, mark: str) -> None:
    assert mark in table.render(table.rows([(result(), "x")]), form)


def test_names_cannot_break_out_of_html() -> None:
    text = table.render(table.rows([(result("<script>alert(1)</script>"), "x")]), "html")
    assert "<script>" not in text


def test_own_runs_take_the_place_of_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records, runs = tmp_path / "records" / "synthlam", tmp_path / "runs" / "results" / "synthlam" / "internlstm"
    records.mkdir(parents=True)
    runs.mkdir(parents=True)
    (records / "internlstm.json").write_text(json.dumps(result()))
    (records / "probe.json").write_text(json.dumps(result("probe")))
    (runs / "result.json").write_text(json.dumps(result()))
    monkeypatch.setattr(table, "RECORDS", tmp_path / "records")
    assert {r["name"]: origin for r, origin in table.collect(tmp_path / "runs")} == {
        "internlstm": "this machine",
        "probe": "record of 2026-11-22",
    }
    assert len(table.collect(None)) == 2
