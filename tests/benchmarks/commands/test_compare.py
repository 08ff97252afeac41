"""`compare` on written rows: joined by key, printed as text and JSON, refused in one line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import main
from benchmarks.evaluation.metrics import lam_map
from benchmarks.table.table import RECORDS
from tests.benchmarks.pixels.looking import FRAMES, draw_clips

HOME = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _few_swaps(monkeypatch):
    monkeypatch.setattr("benchmarks.evaluation.compare.SWAPS", 50)


def write_row(out, name, table, dataset="synthlam"):
    folder = out / "results" / dataset / name.replace("[", "-")
    folder.mkdir(parents=True)
    record = json.loads((RECORDS / "synthlam" / "internlstm.json").read_text())
    record |= {"name": name, "dataset": {**record["dataset"], "name": dataset}, "splits": {}, "diagnosis": None}
    (folder / "result.json").write_text(json.dumps(record))
    table.to_csv(folder / "predictions.csv", index=False)
    return folder


def predictions(made, scores, seeds, split="test"):
    """As a run writes them; the clip's name is a number with a leading zero, which must stay text."""
    number = np.arange(len(made.labels))
    keys = pd.DataFrame(dict(clip=[f"{clip:02d}" for clip in made.clip], track=number // FRAMES, frame=number % FRAMES))
    keys = keys.assign(person="1", x1=0, y1=0, x2=9, y2=9, unique_id="", label=made.labels)
    return pd.concat(
        [keys.assign(score=of_seed, split=split, seed=seed) for seed, of_seed in zip(seeds, scores, strict=True)]
    )


@pytest.fixture(scope="module")
def made():
    return draw_clips(3, clips=8)


@pytest.fixture(scope="module")
def tables(made):
    return {
        "good": predictions(made, made.train(3, gain=1.5), [1, 2, 3]),
        "plain": predictions(made, made.train(3), [1, 2, 3]),
        "once": predictions(made, made.train(1), [9]),
    }


@pytest.fixture
def out(tables, tmp_path):
    for name, table in tables.items():
        write_row(tmp_path, name, table)
    return tmp_path


def compare(capsys, *arguments, code=0):
    capsys.readouterr()
    assert main(["compare", *map(str, arguments)]) == code
    printed = capsys.readouterr()
    if code:
        assert printed.out == "" and printed.err.count("\n") == 1
        return printed.err
    return printed.out


def test_json_says_everything(out, tables, capsys):
    values = json.loads(compare(capsys, "good", "plain", "--out", out, "--json"))
    for side in ("a", "b"):
        table = tables[values[side]["name"]]
        figures = [lam_map(part["score"].to_numpy(), part["label"].to_numpy()).map for _, part in table.groupby("seed")]
        assert values[side]["per_seed"] == pytest.approx(figures, abs=1e-12)
        assert values[side]["std"] == pytest.approx(np.std(figures, ddof=1))
    assert values["difference"] == pytest.approx(values["a"]["mAP"] - values["b"]["mAP"])
    low, high = values["interval"]
    assert low < values["difference"] < high and values["told_apart"] == (low > 0)
    assert values["frames"] == 8 * 2 * FRAMES and values["clips"] == 8 and values["paired_seeds"] == [1, 2, 3]
    assert 0 < values["p"] <= 1
    turned = json.loads(compare(capsys, "plain", "good", "--out", out, "--json"))
    assert turned["interval"] == pytest.approx([-high, -low])


def test_in_words(out, capsys):
    text = compare(capsys, "plain", out / "results" / "synthlam" / "once", "--out", out)
    assert "704 key frames of 8 clips" in text and "0 paired" in text
    assert "once has one seed, so its spread over seeds is taken from the other row." in text
    text = compare(capsys, "once", "once", "--out", out)
    assert "includes 0: the two are statistically tied" in text
    assert "Each row has one seed, so the difference may be due to the seeds" in text


def test_too_few_runs_are_not_compared(out, tables, made, capsys):
    """Two clips have one degree of freedom: the interval would be 12.7 standard errors to each side."""
    for name in ("good", "once"):
        table = tables[name]
        write_row(out, f"{name}-few", table[table["clip"].isin(["00", "01"])])
    text = compare(capsys, "good-few", "once-few", "--out", out)
    assert "too few runs to compare: run both again with --seeds 5 or more and on more than these 2 clips." in text
    assert "interval" not in text and "p =" not in text and "176 key frames of 2 clips" in text
    values = json.loads(compare(capsys, "good-few", "once-few", "--out", out, "--json"))
    assert values["interval"] is None and values["p"] is None and values["told_apart"] is False
    assert "too few runs" in values["summary"]


def test_rows_are_joined_by_key_in_any_order(out, tables, capsys):
    write_row(out, "shuffled", tables["plain"].sample(frac=1, random_state=0))
    ours, shuffled = (json.loads(compare(capsys, "good", b, "--out", out, "--json")) for b in ("plain", "shuffled"))
    for key in ("difference", "interval", "p"):
        assert ours[key] == shuffled[key]


def test_frames_that_one_row_lacks_are_left_out_and_counted(out, tables, capsys):
    part = tables["plain"][tables["plain"]["frame"] % 2 == 0]
    write_row(out, "half", part)
    values = json.loads(compare(capsys, "good", "half", "--out", out, "--json"))
    assert values["frames"] == 8 * FRAMES
    assert "Only 352 of the 704 key frames of good are also in the other row." in values["summary"]
    kept = tables["good"][tables["good"]["frame"] % 2 == 0]
    own = [lam_map(each["score"].to_numpy(), each["label"].to_numpy()).map for _, each in kept.groupby("seed")]
    assert values["a"]["per_seed"] == pytest.approx(own, abs=1e-12)


def test_unlabelled_frames_do_not_count(out, tables, capsys):
    table = tables["plain"].copy()
    table.loc[table["frame"] >= 40, "label"] = -1
    write_row(out, "some", table)
    assert json.loads(compare(capsys, "some", "good", "--out", out, "--json"))["frames"] == 8 * 2 * 40


def test_refused_in_one_line(out, tables, made, capsys):
    plain = tables["plain"]
    changes = {
        "elsewhere": plain.assign(clip="x" + plain["clip"]),
        "relabelled": plain.assign(label=1 - plain["label"]),
        "twice": pd.concat([plain, plain]),
        "one-class": plain[plain["label"] == 0],
    }
    for name, table in changes.items():
        write_row(out, name, table)
    write_row(out, "other-data", plain, dataset="ego4d")
    uneven = predictions(made, made.train(2), [1, 2]).iloc[:-1]
    write_row(out, "ragged", uneven)
    for other, words in {
        "elsewhere": "have no key frame in common",
        "relabelled": "differ in 704 labels, the first: clip 00, track 0, frame 0",
        "twice": "duplicate frames in the",
        "ragged": "seed 2 and the first have different frames",
        "one-class": "are of one class, so mAP is undefined",
        "plaim": "no row plaim in " + str(out / "results" / "synthlam") + "; did you mean 'plain'?",
        str(out / "results" / "ego4d" / "other-data"): "on synthlam",
    }.items():
        assert words in compare(capsys, "good", other, "--out", out, code=2)
    assert "no labelled frames of the val split" in compare(
        capsys, "good", "plain", "--out", out, "--split", "val", code=2
    )
    path = out / "results" / "synthlam" / "plain" / "predictions.csv"
    lines = path.read_text().splitlines()
    # A clip with a comma that is not quoted: all columns up to the score move, and their types still fit.
    path.write_text("\n".join([lines[0], lines[1].replace("00,", "0,0,", 1), *lines[2:]]))
    assert "line 2 has 14 fields instead of 13" in compare(capsys, "good", "plain", "--out", out, code=2)
    path.unlink()
    assert "cannot read " in compare(capsys, "good", "plain", "--out", out, code=2)


def test_torch_is_not_imported(out):
    code = (
        f"import sys, bench\nassert bench.main(['compare', 'good', 'once', '--out', {str(out)!r}]) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
