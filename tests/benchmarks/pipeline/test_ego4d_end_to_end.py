"""Ego4D from raw annotation files and videos to a submission, by the command line alone, on SynthLAM as Ego4D ships.

The tree under test is what a licence holder has after the download: `json/av_*.json`, `videos/<clip>.mp4` of 1920 x
1080 at 30 frames a second, and the unlabelled test crops. Its faces are SynthLAM's crops, put back where the scene's
camera saw them, so that figures can be held against those of the crops that ship.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.data import synthlam
from benchmarks.data.ego4d import read_split
from tests.conftest import HOME

SIZE = (1920, 1080)
FIRST = 4  # the frame number that a clip's first annotated frame is moved to: scenes of 50 frames, not of 4,000


def make_videos(root: Path, clips: int | None = None) -> None:
    """Write the raw tree: annotations moved to FIRST, one video a clip, and the test crops without their labels.

    With `clips`, so many clips of each split, the first that have frames of both classes.
    """
    av = pytest.importorskip("av")
    shipped = synthlam.root()
    for folder in sorted((shipped / "videos_challenge").iterdir())[:clips]:
        shutil.copytree(folder, root / "videos_challenge" / folder.name)
    for folder in ("json", "videos"):
        (root / folder).mkdir(parents=True)
    for split in ("train", "val"):
        table = read_split(shipped, split)
        if clips is not None:
            both = table.groupby("clip")["label"].agg(lambda labels: {0, 1} <= set(labels))
            table = table[table["clip"].isin(both.index[both][:clips])]
        first = table.groupby("clip")["frame"].min() - FIRST
        content = json.loads((shipped / "json" / f"av_{split}.json").read_text())
        for video in content["videos"]:
            video["clips"] = [clip for clip in video["clips"] if clip["clip_uid"] in first]
        for clip in (clip for video in content["videos"] for clip in video["clips"]):
            moved = int(first[clip["clip_uid"]])
            for segment in clip["social_segments_looking"] or []:
                segment["start_frame"] -= moved
                segment["end_frame"] -= moved
            for box in (b for p in clip["persons"] for path in p["tracking_paths"] for b in path["track"]):
                box["frame"] -= moved if box["frame"] else 0  # frame 0 is no frame, wherever the clip starts
        (root / "json" / f"av_{split}.json").write_text(json.dumps(content))
        for clip, rows in table.groupby("clip"):
            with av.open(str(root / "videos" / f"{clip}.mp4"), "w") as container:
                stream = container.add_stream("libx264", rate=30)
                stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
                stream.options = {"preset": "ultrafast", "crf": "12"}
                by_frame = dict(iter(rows.assign(frame=rows["frame"] - first[clip]).groupby("frame")))
                last: dict[str, Image.Image] = {}
                for frame in range(1, max(by_frame) + 1):
                    picture = Image.new("RGB", SIZE, (96, 96, 96))
                    for row in by_frame.get(frame, rows.iloc[:0]).itertuples():
                        if row.image:  # where the detector missed the face, it still is there: shown as it was before
                            last[row.track] = Image.open(shipped / row.image).convert("RGB")
                        if row.track in last:
                            picture.paste(last[row.track], (max(int(row.x1), 0), max(int(row.y1), 0)))
                    for packet in stream.encode(av.VideoFrame.from_image(picture)):
                        container.mux(packet)
                for packet in stream.encode():
                    container.mux(packet)


def bench(*arguments: object, folder: Path) -> str:
    """Run one command in a folder of its own; its stdout."""
    done = subprocess.run(
        [sys.executable, HOME / "bench.py", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_raw_annotations_and_videos_to_a_submission(tmp_path: Path) -> None:
    root = tmp_path / "ego4d"
    make_videos(root, clips=60)
    scale = ["--set", "windows.stride.train=8", "--set", "windows.stride.val=8", "--set", "training.epochs=20"]
    head = "projection=128", "hidden=96", "mlp=(128,64,64)"
    scale += [part for setting in head for part in ("--set", f"head.{setting}")]

    # prepare, twice: the second changes no byte
    said = bench("prepare", "--root", root, "--split-lists", "official", folder=tmp_path)
    assert "60 clips of train, 60 clips of val" in said, said
    assert "videos missing" not in said and "past the end" not in said, said
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*") if path.is_file()}
    bench("prepare", "--root", root, "--split-lists", "official", folder=tmp_path)
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in root.rglob("*") if p.is_file()}

    # the frames are SynthLAM's, but for the move, with the same boxes and labels
    shipped = synthlam.root()
    for split in ("train", "val"):
        bench("index", "--root", root, "--split", split, "-o", f"{split}.csv", folder=tmp_path)
        ours, theirs = pd.read_csv(tmp_path / f"{split}.csv"), read_split(shipped, split, images=False)
        theirs = theirs[theirs["clip"].isin(ours["clip"])]
        theirs["frame"] += FIRST - theirs.groupby("clip")["frame"].transform("min")
        for column in ("clip", "track", "frame", "label"):
            assert ours[column].tolist() == theirs[column].tolist(), column
        np.testing.assert_allclose(ours[["x1", "y1", "x2", "y2"]], theirs[["x1", "y1", "x2", "y2"]], atol=1e-6)
    assert len(list((root / "face_imgs").rglob("*.jpg"))) == len(pd.read_csv(tmp_path / "train.csv")) + len(ours)

    # extract -> train -> validation score -> test predictions, by the one command
    run = ["run", "--recipe", "internlstm_flip_tta", "--backbone", "internvit_nano"]
    bench(*run, *scale, "--dataset", "ego4d", "--root", root, "--out", "runs", folder=tmp_path)
    (row,) = (tmp_path / "runs" / "results" / "ego4d").iterdir()
    result = json.loads((row / "result.json").read_text())
    assert "test" not in result["splits"]  # its labels are not there

    # the validation file scores the same by itself
    seed = row / "seed3407"
    files = ["--groundtruth", row / "groundtruth_val.csv", "--predictions", seed / "val.csv"]
    scored = json.loads(bench("score", *files, "--json", folder=tmp_path))
    figures = result["splits"]["val"]["metrics"]
    for name, value in {"mAP": scored["mAP"], "accuracy": scored["accuracy"]}.items():
        assert value == pytest.approx(figures[name]["mean"], abs=1e-12)

    # and about what the crops that ship give, which no video has compressed and no resize blurred
    bench(*run, "--out", "shipped", folder=tmp_path)
    (reference,) = (tmp_path / "shipped" / "results" / "synthlam").iterdir()
    expected = json.loads((reference / "result.json").read_text())["splits"]["val"]["metrics"]["mAP"]["mean"]
    assert figures["mAP"]["mean"] == pytest.approx(expected, abs=0.08)
    assert figures["mAP"]["mean"] > 0.6

    # the submission has every test crop once, by its id, with every digit of its score
    bench("submit", seed / "test.csv", "-o", "submission.json", "--test-root", root, folder=tmp_path)
    sent = {r["unique_id"]: r for r in json.loads((tmp_path / "submission.json").read_text())["results"]}
    crops = {p.stem.partition("_")[2]: p for p in (root / "videos_challenge").rglob("*.jpg")}
    assert sent.keys() == crops.keys()
    predictions = pd.read_csv(seed / "test.csv", header=None, dtype={0: str, 1: str, 2: str})
    assert [sent[uid]["score"] for uid in predictions[1]] == predictions[4].tolist()
    for uid, path in crops.items():
        assert (sent[uid]["video_id"], sent[uid]["track_id"]) == (path.parts[-3], path.parts[-2])

    # which the challenge's server would score as we do, had it SynthLAM's labels
    truth = pd.read_csv(shipped / "labels_challenge.csv", dtype=str)
    truth = truth[truth["unique_id"].isin(crops)]
    truth[["clip", "unique_id", "track", "label"]].to_csv(tmp_path / "server.csv", header=False, index=False)
    files = ["--groundtruth", "server.csv", "--predictions", seed / "test.csv"]
    assert json.loads(bench("score", *files, "--json", folder=tmp_path))["mAP"] > 0.6
