import csv
import io
import json
import re
from pathlib import Path

import pytest

from benchmarks.config.files import recipe_version
from benchmarks.rows.schema import SCHEMA, Result
from benchmarks.table import render, table
from benchmarks.table.groups import groups_of
from benchmarks.table.notes import notes as notes_of
from registry import UserError

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
        "fitted": {},
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
    text = render.render(table.rows([(result(), "this machine")]))
    assert cells(text, "InternLSTM") == [
        "InternLSTM", "internlstm", "internvit_nano for internvit_6b", "lstm", "76.57", "81.23 ± 1.23", "",
        "78.00 to 84.00",
        "81.23", "2", "1.50 M + 0.42 M", "41 + 10", "this machine, 8812e03",
    ]  # fmt: skip
    assert "synthlam test mAP" in text


def test_cited_rows_stand_without_measured_figures() -> None:
    text = render.render(table.rows([]))
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
    assert word in render.render(table.rows([(result(**changes), "x")]))


def test_a_random_start_has_a_note() -> None:
    rows = [table.rows([(result(backbone__weights={"random_init": start}), "x")]) for start in (True, False)]
    with_note, without = ("\n".join(notes_of(each)) for each in rows)
    assert "starts from random weights, also where the published method starts from others" in with_note
    assert "random" not in without


def test_a_start_from_renders_is_named_and_has_a_note() -> None:
    weights = {"name": "gaze_resnet18_renders", "random_init": False}
    rows = table.rows([(result("gazepose", backbone__type="gaze_resnet18", backbone__weights=weights), "x")])
    assert [row.backbone for row in rows if row.recipe] == ["gaze_resnet18 for internvit_6b (renders)"]
    notes = "\n".join(notes_of(rows))
    assert '"(renders)": the backbone and the LSTM start from weights trained on the gaze of rendered heads' in notes
    assert "random" not in notes


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        (["init=random"], "GazePose (from random weights)"),
        (["init=renders"], "GazePose (from renders)"),
        (["init=imagenet", "training.lr=0.1"], "GazePose (from ImageNet) (changed)"),
        (["init=None"], "GazePose (changed)"),
    ],
)
def test_another_start_is_another_row_of_the_method(changes: list[str], method: str) -> None:
    config = {
        "recipe": "gazepose", "version": 2, "method": "GazePose", "published": "GazePose", "limit": None,
        "init": None, "changes": changes,
    }  # fmt: skip
    rows = table.rows([(result("gazepose+" + "+".join(changes), config=config), "x")])
    measured = [row for row in rows if row.recipe]
    assert [(row.method, row.published_map) for row in measured] == [(method, None)]
    place = [row.method.partition(" (")[0] for row in rows]
    assert place.index("GazePose") < place.index("InternLSTM")


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
        "recipe": "gazepose", "version": 2, "method": "GazePose", "published": "GazePose", "limit": None,
        "changes": ["weights=mine.safetensors"],
        "init": "gaze360",
    }  # fmt: skip
    head: dict = {"type": "gazepose", "parameters": 1, "initialised_from": {"file": "mine.safetensors", "kind": None}}

    def found() -> list[tuple[str, float | None]]:
        rows = table.rows([(result("gazepose", config=config, head=head), "x")])
        return [(row.method, row.published_map) for row in rows if row.recipe]

    assert found() == [("GazePose (changed)", None)]
    head["initialised_from"]["kind"] = "gaze360"
    assert found() == [("GazePose", 0.7629)]
    config["changes"].append("checkpoint=best.safetensors")
    config["checkpoint"] = "best.safetensors"
    assert found() == [("GazePose (checkpoint)", 0.7629)]
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
    record["splits"] = {"test": {**test, "metrics": {**test["metrics"], "mAP": metric}, "without_clip": without}}
    record["seeds"] = list(range(1, len(per_seed) + 1))
    record["training"] = record["training"] if "training" in changes else [{}] * len(per_seed)
    return record


def ranks_of(records: list[Result]) -> dict[str, tuple[bool | None, str]]:
    """Row -> whether it is tied with the best, and its rank as printed."""
    return {
        row.recipe: (row.tied, "" if row.rank is None else f"{row.rank} ({row.rank_low}-{row.rank_high})")
        for row in table.rows([(record, "x") for record in records])
        if row.recipe
    }


def test_rows_are_marked_and_ranked_among_those_on_the_same_key_frames() -> None:
    """Each difference from the best is one number per seed and clip, so it is plain whether 0 is inside."""
    even, uneven = (0.001, -0.001, 0.001, -0.001), (0.02, -0.02, 0.02, -0.02)
    records = [
        with_clips("best", [0.800, 0.804, 0.802], even),
        with_clips("near", [0.799, 0.804, 0.801], even),  # by 0.001, a third of the spread over seeds
        with_clips("far", [0.700, 0.7041, 0.702], even),  # by 0.1
        with_clips("erratic", [0.700, 0.7041, 0.702], uneven),  # as far, but each clip moves it by 6 points
        with_clips("partial", [0.9, 0.9, 0.9], even, config__limit=5),
        result("old"),
    ]
    records[4]["splits"]["test"]["windows"] = 5
    assert ranks_of(records) == {
        "best": (True, "1 (1-3)"),
        "near": (True, "1 (1-3)"),
        "erratic": (True, "3 (1-4)"),
        "far": (False, "3 (3-4)"),
        "partial": (None, ""),  # other key frames
        "old": (None, ""),  # lacks the figures to compare, though 81.23 is the highest
    }
    rows = table.rows([(record, "x") for record in records])
    text = render.render(rows)
    cell = {line.split("|")[2].strip(): line.split("|")[6].strip() for line in text.splitlines()[2:]}
    marks = {name: cell[name].rpartition(" ")[2] for name in ("best", "near", "erratic", "far", "partial", "old")}
    assert marks == {"best": "†", "near": "†", "erratic": "†", "far": "1.00", "partial": "?", "old": "?"}
    notes = notes_of(rows, groups_of(records))
    (tie,) = (note for note in notes if note.startswith("†: statistically tied with the best row of synthlam test"))
    assert "4 rows are compared in 6 pairs" in tie and "4 clips" in tie
    assert any(note.startswith("?: not compared") for note in notes)
    fields = json.loads(render.render(rows, render.TableView("json")))
    assert next(row for row in fields if row["recipe"] == "far")["rank_low"] == 3
    for form in ("csv", "html"):
        assert "rank" in render.render(rows, render.TableView(form))
    latex = render.render(rows, render.TableView("latex"))
    assert r"80.20 $\pm$ 1.00$^{\dagger}$" in latex and "tied with the best row" in latex
    assert not set("†±") & set(latex)


def reference(name: str, scorer: str, value: float, steps: tuple[float, ...]) -> Result:
    """A record of a floor or ceiling."""
    part = {"type": "none", "of": [], "parameters": 0}
    config = {**result()["config"], "recipe": name, "method": name, "published": None, "scorer": scorer}
    return with_clips(name, [value], steps, backbone=part, head=part, training=[], config=config)


def test_floors_and_ceilings_stand_apart_and_rows_below_a_floor_are_named() -> None:
    """Nothing else of the table changes when they are there: the best row is the best trained one."""
    even, uneven = (0.001, -0.001, 0.001, -0.001), (0.02, -0.02, 0.02, -0.02)
    trained = [
        with_clips("best", [0.800, 0.804, 0.802], even),
        with_clips("near", [0.739, 0.744, 0.741], uneven),  # by 0.009 below the floor, while each clip moves it by 6
        with_clips("far", [0.500, 0.504, 0.502], even),  # below both floors
    ]
    floors = [reference("pose", "pose_prior", 0.75, even), reference("luck", "chance", 0.51, even)]
    records = [reference("gaze", "truth", 0.95, even), *trained, *floors]
    groups = groups_of(records)
    rows = table.rows([(record, "x") for record in records], groups)
    measured = {row.recipe: row for row in rows if row.recipe}
    assert list(measured)[-3:] == ["gaze", "luck", "pose"]
    alone = ranks_of(trained)
    assert {name: places for name, places in ranks_of(records).items() if name in alone} == alone
    assert {name: row.below for name, row in measured.items()} == {
        "best": "", "near": "pose", "far": "pose, luck", "gaze": "", "luck": "", "pose": "",
    }  # fmt: skip
    assert [measured[name].bound for name in ("best", "gaze", "luck", "pose")] == ["", "ceiling", "floor", "floor"]

    text = render.render(rows)
    cell = {line.split("|")[2].strip(): line.split("|")[6].strip() for line in text.splitlines()[2:]}
    assert cell["far"].endswith("§") and cell["near"].endswith("§") and "§" not in cell["best"]
    assert [cell[name] for name in ("gaze", "luck", "pose")] == ["95.00", "51.00", "75.00"]  # no mark, no spread
    assert cells(text, "pose (floor)")[9:12] == ["", "", ""]  # seeds, parameters, seconds
    notes = notes_of(rows, groups)
    assert any(note.startswith("(floor), (ceiling): nothing is trained") for note in notes)
    pose, luck = (note for note in notes if note.startswith("§: "))
    assert "pose trains nothing and has 75.00 on synthlam test; lower are near, far." in pose
    assert pose.endswith("excludes 0 for far.")
    assert "lower are far." in luck
    assert "3 rows are compared in 3 pairs" in next(note for note in notes if note.startswith("†: "))


def test_rows_above_their_floors_have_no_note() -> None:
    even = (0.001, -0.001, 0.001, -0.001)
    records = [with_clips("best", [0.800, 0.804, 0.802], even), reference("luck", "chance", 0.5, even)]
    groups = groups_of(records)
    rows = table.rows([(record, "x") for record in records], groups)
    assert not any("§" in line for line in [render.render(rows), *notes_of(rows, groups)])


def test_floors_alone_are_not_ranked() -> None:
    records = [reference("luck", "chance", 0.5, (0.001, -0.001, 0.001, -0.001))]
    assert groups_of(records) == [] and ranks_of(records) == {"luck": (None, "")}


def test_rows_that_share_their_trainings_are_compared_by_pairs() -> None:
    """Half a point on each of three trainings that differ by ten: found if both records name the same trainings."""
    even = (0.001, -0.001, 0.001, -0.001)
    maps = [0.70, 0.75, 0.80]
    better = [0.7049, 0.7550, 0.8051]
    reports = [
        {"seed": seed, "best_epoch": 1, "best_mAP": value, "history": [value]}
        for seed, value in enumerate(maps, start=1)
    ]
    start = [{**report, "history": [2, report["seed"]], "initial": {"sha256": "1f"}} for report in reports]
    for ours, theirs, tied in (
        (reports, reports, False),
        (reports, [{**report, "history": [0.1]} for report in reports], True),
        (start, [{**report, "history": [0.1], "initial": {"sha256": "1f"}} for report in reports], False),
        (start, [{**report, "history": [0.1], "initial": {"sha256": "2f"}} for report in reports], True),
        ([{}] * 3, [{}] * 3, True),
    ):
        records = [
            with_clips("plain", maps, even, training=ours),
            with_clips("smooth", better, even, training=theirs),
        ]
        assert ranks_of(records)["plain"][0] is tied


def test_an_old_record_of_an_ensemble_knows_its_members_by_their_figures() -> None:
    even = (0.001, -0.001, 0.001, -0.001)
    member = with_clips("member", [0.70, 0.75, 0.80], even)
    ensemble = with_clips("ensemble", [0.7049, 0.7550, 0.8051], even, training=[])
    ensemble["head"] = {"type": "ensemble", "parameters": 1, "of": [member["head"]]}
    ensemble["splits"]["test"]["views"] = {"member": member["splits"]["test"]["metrics"]["mAP"]}
    assert ranks_of([member, ensemble])["member"][0] is False
    ensemble["splits"]["test"]["views"] = {"other": member["splits"]["test"]["metrics"]["mAP"]}
    assert ranks_of([member, ensemble])["member"][0] is True


def test_figures_fitted_on_the_split_shown_are_marked() -> None:
    """Windows and weights are fitted on validation; a test figure is not touched by that."""
    fitted = {"smoothing window": 9}
    on_test = table.rows([(result(fitted=fitted), "x")])
    on_val = table.rows([(result(fitted=fitted, splits={"val": result()["splits"]["val"]}), "x")])
    assert "‡" not in render.render(on_test)
    assert "81.23 ± 1.23 ‡" in render.render(on_val)
    assert [note for note in notes_of(on_val) if note.startswith("‡: ")] and not any(
        note.startswith("‡: ") for note in notes_of(on_test)
    )


def test_named_rows_are_shown_and_compared_alone(tmp_path: Path) -> None:
    record = tmp_path / "mine.json"
    record.write_text(json.dumps(result("mine")))
    text = render.table_text(tmp_path, names=["internlstm", "probe", str(record)])
    assert [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| ")][1:] == [
        "internlstm", "mine", "probe",
    ]  # fmt: skip
    assert "2 rows are compared in 1 pair," in text
    with pytest.raises(UserError, match="no finished row or committed record prob; did you mean 'probe'"):
        render.table_text(tmp_path, names=["prob"])


def test_without_ties_there_is_no_note() -> None:
    assert not any("†" in note for note in notes_of(table.rows([(result(), "x")])))


def test_one_class_only_is_no_figure() -> None:
    none = {"mean": None, "std": None, "interval": None, "per_seed": [None, None]}
    record = result()
    record["splits"]["test"]["metrics"]["mAP"] = none  # type: ignore[typeddict-item]
    assert "undefined: one class only" in render.render(table.rows([(record, "x")]))


def test_machine_formats_hold_figures_as_they_are() -> None:
    rows = table.rows([(result(), "x")])
    read = next(
        line for line in csv.DictReader(io.StringIO(render.render(rows, render.TableView("csv")))) if line["recipe"]
    )
    assert (float(read["map"]), float(read["map_low"]), int(read["backbone_parameters"])) == (0.8123, 0.78, 1_500_000)
    listed = json.loads(render.render(rows, render.TableView("json")))
    assert next(row for row in listed if row["recipe"])["map"] == 0.8123


@pytest.mark.parametrize(("form", "mark"), [("latex", r"\begin{tabular}"), ("html", "<table>")])
def test_other_forms(form: str, mark: str) -> None:
    assert mark in render.render(table.rows([(result(), "x")]), render.TableView(form))


def test_names_cannot_break_out_of_html() -> None:
    text = render.render(table.rows([(result("<script>alert(1)</script>"), "x")]), render.TableView("html"))
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


def test_a_record_of_an_older_version_of_its_recipe_is_marked() -> None:
    """GazePose is at version 2 or later; its first version had other figures."""
    for version, marked in ((1, True), (recipe_version("gazepose"), False)):
        shown = table.rows([(result("gazepose", config__recipe="gazepose", config__version=version), "record")])
        (row,) = (row for row in shown if row.recipe)
        assert (f"version 1 of {recipe_version('gazepose')}" in row.origin) == marked
        assert any("measured before its recipe was changed" in note for note in notes_of(shown)) == marked
    assert recipe_version("no_such_recipe") is None


def test_text_shows_the_columns_and_order_asked_for(tmp_path: Path) -> None:
    even = (0.001, -0.001, 0.001, -0.001)
    for name, value in (("low", 0.6), ("high", 0.8)):
        record = with_clips(name, [value, value + 0.001], even, config__published=None)
        record["config"]["method"] = name
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    names = [str(tmp_path / "low.json"), str(tmp_path / "high.json")]
    text = render.table_text(None, render.TableView("text", ["method", "map", "best"], sort="map"), names)
    lines = text.split("\n")
    assert lines[0] == "Looking-At-Me on synthlam test, mAP in percent"
    assert [line.split()[0] for line in lines[4:6]] == ["high", "low"]
    assert [line.split()[-1] for line in lines[4:6]] == ["best", "1.00"]
    fields = json.loads(render.table_text(None, render.TableView("json", ["method", "interval"]), names))
    assert [[*row] for row in fields] == [["method", "map_low", "map_high"]] * 2
    for view, reason in (
        (render.TableView("text", ["mapp"]), "unknown column 'mapp'; did you mean 'map'"),
        (render.TableView("text", sort="best row"), "unknown column 'best row'"),
        (render.TableView("text", dataset="ego4d"), "no row of dataset ego4d; there are rows of synthlam"),
    ):
        with pytest.raises(UserError, match=re.escape(reason)):
            render.table_text(None, view, names)


def test_a_changed_row_says_its_changes_in_text() -> None:
    changed = result("internlstm+head=gru+training.lr=0.1", config__changes=["head=gru", "training.lr=0.1"])
    text = render.render([row for row in table.rows([(changed, "x")]) if row.recipe], render.TableView("text"))
    assert "InternLSTM, head=gru, training.lr=0.1" in text
