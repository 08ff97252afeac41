"""Calibration compared with scikit-learn, planted faults and loops; groups compared with loops over frames."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from benchmarks.config.recipe import Recipe
from benchmarks.config.resolve import resolve
from benchmarks.data.frames import frame_table
from benchmarks.data.windows import KeyFrames
from benchmarks.evaluation.calibration import TEMPERATURES, fit_platt, fit_temperature, recalibrate
from benchmarks.evaluation.diagnosis import (
    BINS,
    Diagnosis,
    Groups,
    calibration_error,
    face_size,
    measure_calibration,
    measure_reliability,
)
from benchmarks.evaluation.metrics import lam_map
from benchmarks.pixels.properties import frame_properties
from benchmarks.pixels.sharpness import sharpness_of
from benchmarks.priors.base import Prior, Priors
from benchmarks.rows.provenance import environment
from benchmarks.rows.record import RowContext, RowScores, make_record, write_row
from benchmarks.rows.schema import read_result
from benchmarks.table.diagnosis import diagnosis_text
from registry import UserError

RECORDS = Path(__file__).parents[3] / "benchmarks" / "records" / "synthlam"


def squash(x):
    return 1 / (1 + np.exp(-x))


def calibrated(count: int, seed: int = 0, share: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log odds around those of a share, labels drawn with these odds, and the odds as probabilities."""
    random = np.random.default_rng(seed)
    x = 1.5 * random.normal(size=count) + math.log(share / (1 - share))
    return x, (random.random(count) < squash(x)).astype(int), squash(x)


# Fits on validation


@pytest.mark.parametrize("planted", [0.4, 1.0, 3.0])
def test_a_planted_temperature_is_found(planted: float) -> None:
    x, labels, _ = calibrated(100_000)
    # The information on planted / T is the sum of x^2 p (1 - p), 0.21 a row: a standard error of
    # 1 / sqrt(21,000) = 0.7 %, three of them allowed.
    assert fit_temperature(squash(planted * x), labels) == pytest.approx(planted, rel=0.021)


def test_the_temperature_equals_a_grid_search_and_the_regression_without_intercept() -> None:
    x, labels, _ = calibrated(2000, seed=1, share=0.2)
    x *= 1.8
    assert np.abs(x).max() < 13.8  # within `LOGIT_CUT`
    found = fit_temperature(squash(x), labels)
    grid = np.geomspace(0.5, 5, 4001)  # neighbours 0.06 % apart
    losses = [-np.log(np.where(labels == 1, squash(x / t), squash(-x / t))).mean() for t in grid]
    assert found == pytest.approx(grid[np.argmin(losses)], rel=6e-4)
    theirs = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(x[:, None], labels)
    assert found == pytest.approx(1 / theirs.coef_[0, 0], rel=1e-5)


def test_slope_and_bias_are_those_of_the_regression_on_softened_labels() -> None:
    """Each frame is there twice, looking and not, weighted by Platt's targets."""
    x, labels, _ = calibrated(300, seed=2, share=0.15)
    positives = labels.sum()
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (300 - positives + 2))
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    theirs.fit(np.tile(x, 2)[:, None], np.repeat([1, 0], 300), sample_weight=np.concatenate([target, 1 - target]))
    slope, bias = fit_platt(squash(x), labels)
    assert (slope, bias) == pytest.approx((theirs.coef_[0, 0], theirs.intercept_[0]), abs=1e-4)


def test_a_planted_slope_and_bias_are_found() -> None:
    x, labels, _ = calibrated(100_000, seed=3, share=0.15)
    slope, bias = fit_platt(squash((x + 1.2) / 0.4), labels)
    assert slope == pytest.approx(0.4, rel=0.03)
    assert bias == pytest.approx(-1.2, abs=0.05)


def test_a_bias_repairs_what_no_temperature_can() -> None:
    """Scores as after training with balanced classes: right if half of the frames looked, too high for 15 %."""
    x, labels, p = calibrated(50_000, seed=4, share=0.15)
    scores = squash(x + math.log(0.85 / 0.15))
    with_temperature = recalibrate(scores, 1 / fit_temperature(scores, labels))
    with_bias = recalibrate(scores, *fit_platt(scores, labels))
    # Calibrated scores have the noise of 15 bins, sum of n_b / N sqrt(p (1 - p) / n_b) <= sqrt(15 / 4 / N) = 0.0087.
    assert calibration_error(with_bias, labels) < 0.009 < 0.15 < calibration_error(with_temperature, labels)
    assert calibration_error(p, labels) < 0.009
    assert lam_map(with_bias, labels).map == pytest.approx(lam_map(scores, labels).map, abs=1e-12)


def test_perfect_scores_and_scores_worse_than_chance() -> None:
    labels = np.tile([0, 0, 1], 20)
    right = np.where(labels == 1, 0.7, 0.2)
    assert fit_temperature(right, labels) == pytest.approx(TEMPERATURES[0], rel=1e-3)
    # 40 not looking, 20 looking: all of a class has one score, so the fit meets Platt's targets, 21/22 and 1/42.
    found = recalibrate(np.array([0.7, 0.2]), *fit_platt(right, labels))
    assert found == pytest.approx([21 / 22, 1 / 42], abs=1e-4)
    assert fit_temperature(1 - right, labels) == pytest.approx(TEMPERATURES[1], rel=1e-3)
    slope, bias = fit_platt(1 - right, labels)
    assert slope == pytest.approx(0, abs=1e-6)
    assert squash(bias) == pytest.approx((20 * 21 / 22 + 40 / 42) / 60, abs=1e-4)  # the mean of the targets


def test_certain_and_constant_scores_stay_finite() -> None:
    labels = np.tile([0, 0, 1], 20)
    for scores in (np.tile([0.0, 0.0, 1.0], 20), np.tile([0.0, 1.0, 1.0], 20), np.full(60, 0.5), np.full(60, 1.0)):
        fits = [fit_temperature(scores, labels), *fit_platt(scores, labels)]
        assert np.isfinite(fits).all()
        for slope, bias in ((1 / fits[0], 0.0), fits[1:]):
            found = recalibrate(scores, slope, bias)
            assert ((found >= 0) & (found <= 1)).all()


def test_one_class_is_refused() -> None:
    for fit in (fit_temperature, fit_platt):
        with pytest.raises(UserError, match="one class only"):
            fit(np.full(5, 0.3), np.ones(5, dtype=int))


# Reliability and its error


@pytest.mark.parametrize("count", [7, 4000])
def test_the_diagram_is_scikit_learns(count: int) -> None:
    random = np.random.default_rng(count)
    scores = np.stack([random.random(count) ** 3, np.round(random.random(count) * BINS) / BINS])  # the last on edges
    labels = (random.random(count) < 0.3).astype(int)
    for rows in (scores[:1], scores):
        found = measure_reliability(rows, labels)
        looking, mean = calibration_curve(np.tile(labels, len(rows)), rows.ravel(), n_bins=BINS)
        filled = [n > 0 for n in found["count"]]
        assert sum(found["count"]) == rows.size and len(filled) == BINS
        for ours, theirs in ((found["score"], mean), (found["looking"], looking)):
            assert [value for value, full in zip(ours, filled, strict=True) if full] == pytest.approx(theirs, abs=6e-5)
            assert all(value is None for value, full in zip(ours, filled, strict=True) if not full)


def test_counts_of_the_diagram_one_score_at_a_time() -> None:
    scores = np.concatenate([np.random.default_rng(0).random(500), [0.0, 1.0, 0.2, 1 / 3, 0.6]])
    expected = [0] * BINS
    for score in scores:
        place = 0
        while place < BINS - 1 and score > np.linspace(0, 1, BINS + 1)[place + 1]:
            place += 1
        expected[place] += 1
    assert measure_reliability(scores[None], np.zeros(len(scores), dtype=int))["count"] == expected


def test_calibration_error_bin_by_bin() -> None:
    random = np.random.default_rng(5)
    scores, labels = random.random((3, 400)), (random.random(400) < 0.4).astype(int)
    errors = []
    for of_seed in scores:
        error = 0.0
        for place in range(BINS):
            inside = [i for i in range(400) if place / BINS < of_seed[i] <= (place + 1) / BINS]
            if inside:
                gap = np.mean([labels[i] for i in inside]) - np.mean([of_seed[i] for i in inside])
                error += len(inside) / 400 * abs(gap)
        errors.append(error)
    assert [calibration_error(of_seed, labels) for of_seed in scores] == pytest.approx(errors, abs=1e-12)
    found = measure_calibration(scores, labels)
    assert found["ece"] == pytest.approx(np.mean(errors), abs=6e-5)
    assert found["ece_std"] == pytest.approx(np.std(errors, ddof=1), abs=6e-5)
    assert found["log_loss"] == pytest.approx(np.mean([log_loss(labels, of_seed) for of_seed in scores]), abs=6e-5)
    assert measure_calibration(scores[:1], labels)["ece_std"] == 0


def test_log_loss_is_that_of_the_formula_also_for_certain_scores() -> None:
    """Scores are cut to [1e-6, 1 - 1e-6], so that one that is certain and wrong costs ln 1e6 and not everything."""
    scores, labels = np.array([[1.0, 0.0, 0.9, 1e-9], [0.5, 0.5, 0.0, 1.0]]), np.array([1, 1, 1, 0])
    cut = -math.log(1 - 1e-6)
    first = (cut + math.log(1e6) - math.log(0.9) + cut) / 4
    second = (2 * math.log(2) + 2 * math.log(1e6)) / 4
    assert measure_calibration(scores, labels)["log_loss"] == pytest.approx((first + second) / 2, abs=6e-5)


# Groups


def a_row(
    scores: dict, key_frames: dict, tables: dict, properties: dict | None = None
) -> tuple[Recipe, RowScores, RowContext]:
    """A row with these scores, for `make_record`."""
    weights = {"origin": "none", "licence": "none", "sha256": None, "random_init": False}
    row_scores = RowScores(
        seeds=[1, 2],
        key_frames=key_frames,
        parts={split: {"original": list(of_split)} for split, of_split in scores.items()},
        fused=scores,
        fitted={},
        backbone={"type": "none", "stands_in_for": None, "parameters": 0, "fingerprint": {}, "weights": weights},
        head={"type": "none", "parameters": 0},
        training=[{}, {}],
        counts={"damaged": 0},
        seconds={"features": 1.0, "training": 1.0},
    )
    splits = {split: {"rows": 1, "crops": 1, "clips": 1, "sha256": split} for split in key_frames}
    context = RowContext(
        identity={},
        dataset_info={"name": "made up", "note": "", "checksum": None, "splits": splits},
        tables=tables,
        strides=dict.fromkeys(key_frames, 2),
        videos={},
        frame_properties=properties or {},
        environment={**environment("cpu"), "deterministic": {"features": True, "training": True, "scores": True}},
    )
    return resolve("probe"), row_scores, context


def diagnosis_of(scores: dict, key_frames: dict, tables: dict, properties: dict | None = None) -> Diagnosis:
    """The diagnosis in the record of a row."""
    found = make_record(*a_row(scores, key_frames, tables, properties))["diagnosis"]
    assert found is not None
    return found


def groups_of(
    scores: np.ndarray, key_frames: KeyFrames, table: pd.DataFrame, properties: dict[str, np.ndarray]
) -> dict[str, Groups]:
    """The groups of a row with validation frames only."""
    found = diagnosis_of({"val": scores}, {"val": key_frames}, {"val": table}, {"val": properties})
    return found["splits"]["val"]["groups"]


def split_of(clips: int, seed: int, looking: float = 0.3) -> tuple[pd.DataFrame, KeyFrames, np.ndarray]:
    """A table of clips of 30 frames, key frames in two of three rows, and scores of two seeds."""
    random = np.random.default_rng(seed)
    count = 30 * clips
    width, height = random.uniform(20, 90, count), random.uniform(20, 90, count)
    table = frame_table(
        dict(
            clip=np.repeat([f"clip{number:02d}" for number in range(clips)], 30),
            track="t",
            frame=np.tile(np.arange(1, 31), clips),
            person="1",
            x1=5.0,
            y1=7.0,
            x2=5 + width,
            y2=7 + height,
            label=(random.random(count) < looking).astype(int),
            image="crop.png",
            unique_id="",
        )
    )
    centres = np.flatnonzero(np.arange(count) % 3 != 0)
    rows = np.where(random.random((len(centres), 7)) < 0.15, -1, centres[:, None])
    key_frames = KeyFrames(rows, centres, table["label"].to_numpy()[centres])
    scores = squash(1.2 * key_frames.labels - 0.6 + random.normal(size=(2, len(centres))))
    return table, key_frames, scores


def by_loop(values, scores, labels, clips, edges):
    """Group by the number of edges at or below a value; returns the figures of each group without interval."""
    members = {}
    for i, value in enumerate(values):
        number = len(edges) + 1 if math.isnan(value) else sum(value >= edge for edge in edges)
        members.setdefault(number, []).append(i)
    found = []
    for number in range(max(len(edges), *members) + 1):
        own = members.get(number, [])
        one_class = len({labels[i] for i in own}) < 2
        reached = None if one_class else np.mean([lam_map(of_seed[own], labels[own]).map for of_seed in scores])
        found.append((len(own), sum(labels[i] for i in own), len({clips[i] for i in own}), reached))
    return found


def test_groups_frame_by_frame() -> None:
    table, key_frames, scores = split_of(clips=20, seed=6)
    random = np.random.default_rng(7)
    properties = {"blur": random.gamma(2, 400, len(table)), "side": np.round(random.uniform(0, 3, len(table)))}
    properties["blur"][random.random(len(table)) < 0.1] = np.nan
    properties["nothing"] = np.full(len(table), np.nan)
    found = groups_of(scores, key_frames, table, properties)
    assert list(found) == ["face size", "blur", "side", "absent frames"]

    boxes = zip(*(table[name].to_numpy()[key_frames.centres] for name in ("x1", "y1", "x2", "y2")), strict=True)
    values = {name: of_rows[key_frames.centres] for name, of_rows in properties.items() if name != "nothing"}
    values["face size"] = np.array([min(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes])
    values["absent frames"] = np.array([sum(row == -1 for row in window) for window in key_frames.rows], dtype=float)
    clips = table["clip"].to_numpy()[key_frames.centres]
    for name, groups in found.items():
        expected = by_loop(values[name], scores, key_frames.labels, clips, groups["edges"])
        assert sum(groups["windows"]) == len(key_frames.centres)
        assert len(groups["groups"]) == len(expected)
        for number, (windows, positives, clip_count, reached) in enumerate(expected):
            assert (groups["windows"][number], groups["positives"][number]) == (windows, positives)
            assert groups["clips"][number] == clip_count
            assert groups["mAP"][number] == pytest.approx(reached, abs=6e-5)
            assert 0 <= groups["low"][number] < groups["mAP"][number] < groups["high"][number] <= 1
    # Quartiles: a quarter of the known frames lies below the first edge, up to the rounding of edges to three digits.
    for name in ("face size", "blur"):
        known = [
            n for n, group in zip(found[name]["windows"], found[name]["groups"], strict=True) if group != "unknown"
        ]
        assert len(known) == 4 and max(known) - min(known) <= 4
        assert found[name]["edges"] == [float(f"{edge:.3g}") for edge in found[name]["edges"]]
    assert found["blur"]["groups"][-1] == "unknown" and found["face size"]["groups"][-1] != "unknown"
    assert found["side"]["edges"] == [1, 2]  # quartiles 1, 2, 2 of 0, 1, 2, 3, the outer two half as often
    assert found["side"]["groups"] == ["below 1", "1 to 2", "2 or more"]
    assert found["absent frames"]["groups"] == ["none", "1 or 2", "3 or more"]


def test_a_constant_property_is_one_group() -> None:
    table, key_frames, scores = split_of(clips=3, seed=8)
    groups = groups_of(scores, key_frames, table, {"flat": np.full(len(table), 12.34)})["flat"]
    assert (groups["edges"], groups["groups"], groups["windows"]) == ([], ["all"], [len(key_frames.centres)])


def test_groups_of_one_class_or_clip_have_no_figure() -> None:
    table, key_frames, scores = split_of(clips=4, seed=9)
    size = np.where(table["clip"] == "clip00", 10.0, np.where(table["clip"] == "clip01", 20.0, 30.0))
    labels = np.where(table["clip"].to_numpy()[key_frames.centres] == "clip00", 0, key_frames.labels)
    key_frames = KeyFrames(key_frames.rows, key_frames.centres, labels)
    groups = groups_of(scores, key_frames, table, {"size": size})["size"]
    # Of 10, 20, 30, 30 in equal parts the quartiles lie between 10 and 20, 20 and 30, 30 and 30: the higher ones.
    assert (groups["edges"], groups["clips"], groups["positives"][0]) == ([20, 30], [1, 1, 2], 0)
    assert groups["mAP"][0] is groups["low"][0] is groups["high"][0] is None
    assert groups["mAP"][1] is not None and groups["low"][1] is None  # one clip: nothing to resample
    assert groups["low"][2] < groups["mAP"][2] < groups["high"][2]


def test_face_size_is_the_shorter_side() -> None:
    boxes = pd.DataFrame(dict(x1=[0.0, 10.0, np.nan], y1=[0.0, 5.0, 0.0], x2=[30.0, 70.0, 4.0], y2=[40.0, 25.5, 4.0]))
    np.testing.assert_array_equal(face_size(boxes), [30, 20.5, np.nan])


# The whole


def two_splits() -> tuple[dict, dict, dict]:
    tables, key_frames, scores = {}, {}, {}
    for number, split in enumerate(("train", "val", "test")):
        tables[split], key_frames[split], scores[split] = split_of(clips=6, seed=10 + number)
    return scores, key_frames, tables


def test_only_validation_labels_are_fitted() -> None:
    scores, key_frames, tables = two_splits()
    before = diagnosis_of(scores, key_frames, tables)
    assert list(before["splits"]) == ["val", "test"]
    own = [(fit_temperature(of_seed, key_frames["val"].labels), fit_platt(of_seed, key_frames["val"].labels))
           for of_seed in scores["val"]]  # fmt: skip
    assert before["temperature"] == pytest.approx([temperature for temperature, _ in own], abs=6e-5)
    assert np.array(before["platt"]) == pytest.approx(np.array([line for _, line in own]), abs=6e-5)
    for split in ("val", "test"):
        of_split, labels = before["splits"][split], key_frames[split].labels
        scaled = np.stack([squash(line[0] * np.log(s / (1 - s)) + line[1])
                           for s, (_, line) in zip(scores[split], own, strict=True)])  # fmt: skip
        assert of_split["calibration"]["platt"] == measure_calibration(scaled, labels)
        assert of_split["reliability"]["platt"] == measure_reliability(scaled, labels)
        assert of_split["reliability"]["raw"] == measure_reliability(scores[split], labels)

    for split in ("train", "test"):
        key_frames[split] = KeyFrames(key_frames[split].rows, key_frames[split].centres, 1 - key_frames[split].labels)
    after = diagnosis_of(scores, key_frames, tables)
    assert (after["temperature"], after["platt"]) == (before["temperature"], before["platt"])
    assert after["splits"]["val"] == before["splits"]["val"]
    assert after["splits"]["test"] != before["splits"]["test"]


def test_without_labels_there_is_less() -> None:
    scores, key_frames, tables = two_splits()
    half = key_frames["val"].labels.copy()
    half[::2] = -1
    key_frames["val"] = KeyFrames(key_frames["val"].rows, key_frames["val"].centres, half)
    key_frames["test"] = KeyFrames(key_frames["test"].rows, key_frames["test"].centres, np.full(len(half), -1))
    found = diagnosis_of(scores, key_frames, tables)
    assert list(found["splits"]) == ["val"]
    assert sum(found["splits"]["val"]["reliability"]["raw"]["count"]) == 2 * (half >= 0).sum()
    assert found["temperature"][0] == round(fit_temperature(scores["val"][0][half >= 0], half[half >= 0]), 4)

    key_frames["val"] = KeyFrames(key_frames["val"].rows, key_frames["val"].centres, np.zeros_like(half))
    found = diagnosis_of(scores, key_frames, tables)
    assert found["temperature"] is None and found["platt"] is None
    assert list(found["splits"]["val"]["calibration"]) == list(found["splits"]["val"]["reliability"]) == ["raw"]


class Turned(Prior):
    """Head poses from the row's frame: -60, -58, ... degrees; unknown for frame 2."""

    def read(self, frames: pd.DataFrame) -> Priors:
        pose = np.zeros((len(frames), 3), dtype=np.float32)
        pose[:, 0] = np.where(frames["frame"] == 2, np.nan, 2 * frames["frame"] - 62)
        return Priors(pose, np.zeros((len(frames), 5, 3), dtype=np.float32))


def test_properties_of_labelled_key_frames(tmp_path: Path) -> None:
    scores, key_frames, tables = two_splits()
    random = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(5)]
    for name in names:
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(tmp_path / name)
    tables["test"]["image"] = np.array([*names, ""])[np.arange(len(tables["test"])) % 6]
    key_frames["val"] = KeyFrames(
        key_frames["val"].rows, key_frames["val"].centres, np.full_like(key_frames["val"].labels, -1)
    )
    found = frame_properties(tmp_path, tables, key_frames, tmp_path / "sharpness.npz", Turned(tmp_path, tmp_path))
    assert list(found) == ["test"]  # not train, nor frames without labels, whose crops do not exist
    assert list(found["test"]) == ["sharpness", "head yaw"]
    judged = {name: sharpness_of(Image.open(tmp_path / name)) for name in names}
    for row, (frame, image) in enumerate(zip(tables["test"]["frame"], tables["test"]["image"], strict=True)):
        key = row in key_frames["test"].centres
        expected = [judged.get(image, math.nan), math.nan if frame == 2 else abs(2 * frame - 62)]
        got = [found["test"][name][row] for name in ("sharpness", "head yaw")]
        assert got == pytest.approx(expected if key else [math.nan] * 2, nan_ok=True)
    found = frame_properties(tmp_path, tables, key_frames, tmp_path / "sharpness.npz", None)
    assert list(found["test"]) == ["sharpness"]


def yaws(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, np.ndarray]]:
    return {split: {"head yaw": np.linspace(0, 90, len(table))} for split, table in tables.items()}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The folder of a row, with frame properties in its diagnosis."""
    scores, key_frames, tables = two_splits()
    recipe, row_scores, context = a_row(scores, key_frames, tables, yaws(tables))
    write_row(tmp_path, recipe, make_record(recipe, row_scores, context), row_scores, tables)
    return tmp_path


def test_the_record_has_it_and_tables_show_it(written: Path) -> None:
    result = read_result(written / "result.json")
    scores, key_frames, tables = two_splits()
    assert result["diagnosis"] == json.loads(json.dumps(diagnosis_of(scores, key_frames, tables, yaws(tables))))

    text = diagnosis_text(result)
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]
    of_test = result["diagnosis"]["splits"]["test"]
    assert text.count("calibration error") == 2  # val and test
    raw = of_test["calibration"]["raw"]
    numbers = [f"{100 * raw['ece']:.2f}", f"{100 * raw['ece_std']:.2f}", f"{raw['log_loss']:.3f}"]
    assert ["as they are", *numbers] in cells
    assert f"temperature {np.mean(result['diagnosis']['temperature']):.2f}" in text
    yaw = of_test["groups"]["head yaw"]
    share = 100 * yaw["positives"][0] / yaw["windows"][0]
    interval = f"{100 * yaw['low'][0]:.2f} to {100 * yaw['high'][0]:.2f}"
    figures = [str(yaw["windows"][0]), f"{share:.2f}", "2", f"{100 * yaw['mAP'][0]:.2f}", interval]
    assert [yaw["groups"][0], *figures] in cells  # of six clips in a row, the first quarter is in the first two
    assert "made up test: 120 windows" in text and "mean over 2 seeds" in text
    of_val, of_test = text.split("made up test: ")
    note = "Fitted on this split, so optimistic here: temperature, Platt scaling."
    assert note in of_val and "optimistic" not in of_test
    result["fitted"] = {"smoothing window": 9}
    assert f"{note[:-1]}, smoothing window." in diagnosis_text(result)


def test_older_records_have_no_diagnosis(tmp_path: Path) -> None:
    content = json.loads((RECORDS / "probe.json").read_text())
    content.pop("diagnosis", None)
    (tmp_path / "result.json").write_text(json.dumps(content))
    result = read_result(tmp_path / "result.json")
    assert result["diagnosis"] is None
    assert "run the recipe again" in diagnosis_text(result)


@pytest.mark.parametrize("score", [0.0, 0.3, 0.5, 1.0])
def test_platts_scaling_of_a_constant_score_is_the_share_of_looks(score: float) -> None:
    """Of the softened labels, which are (P + 1) / (P + 2) and 1 / (N + 2)."""
    labels = np.repeat([1, 0], [111, 664])
    share = (111 * 112 / 113 + 664 / 666) / 775
    fitted = fit_platt(np.full(775, score), labels)
    assert recalibrate(np.full(775, score), *fitted) == pytest.approx(share, abs=1e-5)
