"""`compare` on written rows: joined by key, printed as text and JSON, refused in one line."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import main
from benchmarks.evaluation.metrics import lam_map
from benchmarks.rows.find import RECORDS
from tests.benchmarks.pixels.looking import SMALL, draw_clips

HOME = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _few_swaps(monkeypatch):
    monkeypatch.setattr("benchmarks.evaluation.compare.SWAPS", 50)


def write_row(out, name, table, dataset="synthlam", trainings=0):
    """`trainings`: a number that rows of the same trainings share."""
    folder = out / "results" / dataset / name.replace("[", "-")
    folder.mkdir(parents=True)
    record = json.loads((RECORDS / "synthlam" / "internlstm.json").read_text())
    record |= {"name": name, "dataset": {**record["dataset"], "name": dataset}, "splits": {}, "diagnosis": None}
    seeds = sorted({*table["seed"].tolist()})
    reports = [{"seed": seed, "best_epoch": 1, "best_mAP": 0.5, "history": [trainings, seed]} for seed in seeds]
    record |= {"seeds": seeds, "training": reports}
    (folder / "result.json").write_text(json.dumps(record))
    table.to_csv(folder / "predictions.csv", index=False)
    return folder


def predictions(made, scores, seeds, split="test"):
    """As a run writes them; the clip's name is a number with a leading zero, which must stay text."""
    number = np.arange(len(made.labels))
    keys = pd.DataFrame(
        dict(clip=[f"{clip:02d}" for clip in made.clip], track=number // SMALL.frames, frame=number % SMALL.frames)
    )
    keys = keys.assign(person="1", x1=0, y1=0, x2=9, y2=9, unique_id="", label=made.labels)
    return pd.concat(
        [keys.assign(score=of_seed, split=split, seed=seed) for seed, of_seed in zip(seeds, scores, strict=True)]
    )


@pytest.fixture(scope="module")
def made():
    return draw_clips(3, replace(SMALL, clips=8))


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
    assert values["frames"] == 8 * 2 * SMALL.frames and values["clips"] == 8 and values["paired_seeds"] == [1, 2, 3]
    assert (values["pairing"], values["cluster"], values["clusters"]) == ("same trainings", "clip", 8)
    assert 0 < values["p"] <= 1 and values["p_test"] == "clips swapped between the rows, Student's t over seeds"
    turned = json.loads(compare(capsys, "plain", "good", "--out", out, "--json"))
    assert turned["interval"] == pytest.approx([-high, -low])


def test_only_rows_that_share_trainings_are_paired(out, tables, capsys):
    write_row(out, "apart", tables["plain"], trainings=1)
    values = json.loads(compare(capsys, "good", "apart", "--out", out, "--json"))
    assert values["paired_seeds"] == [] and values["pairing"] == "no training in common"
    assert values["a"]["seeds"] == values["b"]["seeds"]
    shared, apart = (compare(capsys, "good", b, "--out", out) for b in ("plain", "apart"))
    assert "3 paired" in shared and "seeds paired: same trainings\n" in shared
    assert "0 paired" in apart and "seeds not paired: no training in common\n" in apart
    for text in (shared, apart):
        assert " (clips swapped, t over seeds), 704 key frames of 8 clips" in text


def test_videos_are_swapped_where_they_hold_several_clips(out, tables, capsys):
    """Two clips per video: the same as if both were one clip."""
    video_of = {f"{clip:02d}": f"v{clip // 2}" for clip in range(8)}
    for name in ("good", "plain"):
        table = tables[name]
        folder = write_row(out, f"{name}-videos", table)
        record = json.loads((folder / "result.json").read_text())
        figures = json.loads((RECORDS / "synthlam" / "internlstm.json").read_text())["splits"]["test"]
        record["splits"] = {"test": {**figures, "videos": video_of}}
        for metric in (*figures["metrics"].values(), *figures["views"].values()):
            metric["per_seed"] = metric["per_seed"][:3]
        record["splits"]["test"]["without_clip"] = {}
        (folder / "result.json").write_text(json.dumps(record))
        joined = table.assign(track=table["clip"] + table["track"].astype(str), clip=table["clip"].map(video_of))
        write_row(out, f"{name}-joined", joined)
    ours, joined = (
        json.loads(compare(capsys, f"good-{kind}", f"plain-{kind}", "--out", out, "--json"))
        for kind in ("videos", "joined")
    )
    assert (ours["cluster"], ours["clusters"], ours["clips"]) == ("video", 4, 8)
    assert (ours["difference"], ours["interval"], ours["p"]) == (joined["difference"], joined["interval"], joined["p"])
    assert "704 key frames of 4 videos" in compare(capsys, "good-videos", "plain-videos", "--out", out)


def test_committed_records_are_compared_like_rows(tmp_path, capsys):
    """Difference and interval from the records' `without_clip`; no p, because records have no scores."""
    values = json.loads(compare(capsys, "probe", "internlstm_flip_tta", "--out", tmp_path, "--json"))
    names = "probe", "internlstm_flip_tta"
    records = [json.loads((RECORDS / "synthlam" / f"{name}.json").read_text()) for name in names]
    means = [record["splits"]["test"]["metrics"]["mAP"]["mean"] for record in records]
    assert values["difference"] == pytest.approx(means[0] - means[1])
    assert values["p"] is None and values["p_test"] is None and values["told_apart"] is True
    assert values["frames"] == records[0]["splits"]["test"]["windows"]
    assert values["a"]["folder"] is None and values["a"]["record"].endswith("probe.json")
    text = compare(capsys, "probe", RECORDS / "synthlam" / "internlstm.json", "--out", tmp_path)
    assert "No p: it needs the scores of both rows, and a record has none." in text and "p =" not in text
    text = compare(capsys, "internlstm_flip_tta", "internlstm_flip", "--out", tmp_path, "--split", "val")
    assert "20 paired" in text and "seeds paired: same trainings" in text
    text = compare(capsys, "internlstm_flip_tta_smooth", "internlstm_flip", "--out", tmp_path, "--split", "val")
    assert "internlstm_flip_tta_smooth: smoothing or weights were fitted on val, so its figure is optimistic." in text
    assert text.count("optimistic") == 1
    other = json.loads((RECORDS / "synthlam" / "probe.json").read_text())
    other["splits"]["test"]["stride"] = 2
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert "are of different key frames, and records have no scores to join" in compare(
        capsys, "probe", tmp_path / "other.json", "--out", tmp_path, code=2
    )
    del other["splits"]["test"]["without_clip"]
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert "has no figures of test to compare; run the recipe again" in compare(
        capsys, "probe", tmp_path / "other.json", "--out", tmp_path, code=2
    )


def test_a_row_of_ones_own_takes_the_place_of_the_record(out, tables, capsys):
    """Its scores are used if the other row has some too, else its record."""
    write_row(out, "internlstm", tables["plain"])
    assert json.loads(compare(capsys, "internlstm", "good", "--out", out, "--json"))["frames"] == 704
    message = compare(capsys, "internlstm", "probe", "--out", out, code=2)
    assert f"{out / 'results' / 'synthlam' / 'internlstm' / 'result.json'} has no figures of test" in message


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
    assert values["frames"] == 8 * SMALL.frames
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
