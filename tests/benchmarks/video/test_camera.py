"""`predict camera:0`, with a camera that is none: the same files as of a video, live and causal."""

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bench
from benchmarks.system import interrupts
from benchmarks.video import camera as cameras
from benchmarks.video.bouts import BoutOptions
from benchmarks.video.camera import Camera, open_capture
from benchmarks.video.decode import Video
from benchmarks.video.live import LiveLooks, predict_camera
from benchmarks.video.pipeline import FILES, Job
from benchmarks.video.scorer import ScoredFace
from benchmarks.video.search import FaceSource
from benchmarks.video.window import LiveWindow
from registry import UserError
from tests.benchmarks.video.parts import Bright, draw, make, model
from zoo import models

SQUARES = [(20, 20, 200), (100, 70, 240)]  # left, upper edge, brightness
BOUTS = BoutOptions(threshold=0.21, least=0.1, merge=0.1)


class Filmed:
    """A camera with 30 pictures a second, or slower ones, of the squares."""

    def __init__(self, frames: int, pause: float = 1 / 30, size: tuple[int, int] = (161, 121)) -> None:
        self.frames, self.pause, self.size = frames, pause, size
        self.number, self.released = 0, False

    def read(self) -> tuple[bool, np.ndarray]:
        time.sleep(self.pause)
        self.number += 1
        return self.number <= self.frames, draw(SQUARES, self.size)[..., ::-1]

    def release(self) -> None:
        self.released = True


def film(tmp_path: Path, capture: Filmed, stopped: Callable[[], bool] = lambda: False) -> Path:
    out = tmp_path / "out"
    camera = Camera("camera:0", capture, stopped)
    predict_camera(Job(camera, model(), FaceSource(Bright(), 7.5, causal=True), out), BOUTS)
    return out


def test_a_camera_leaves_the_files_of_a_video_and_its_recording(tmp_path: Path) -> None:
    capture = Filmed(60)
    out = film(tmp_path, capture)
    assert capture.released
    assert {path.name for path in out.iterdir()} == {*FILES, "recording.mp4", "SHA256SUMS"}
    rows = pd.read_csv(out / "frames.csv", comment="#", dtype={"track": str})
    assert {"1", "2"} <= set(rows["track"])  # more if the machine pauses for longer than a track may
    run = json.loads((out / "run.json").read_text())
    assert run["camera"] == "camera:0" and run["settings"]["causal"] is True
    assert run["facts"]["frames"] + run["facts"]["skipped"] <= 60
    assert (run["facts"]["width"], run["facts"]["height"]) == (160, 120)
    frames = list(Video(out / "recording.mp4").frames())
    assert len(frames) == run["facts"]["frames"] == len(list(Video(out / "annotated.mp4").frames()))
    times = dict(zip(rows["frame"], rows["time"], strict=True))
    assert all(abs(frame.time - times.get(frame.number, frame.time)) < 1e-4 for frame in frames)
    # The recording shows what was scored.
    row = rows[rows["frame"] == rows["frame"].max()].iloc[0]
    picture = frames[int(row.frame)].picture()
    left, top, brightness = SQUARES[int(np.argmin([abs(row.x1 - square[0]) for square in SQUARES]))]
    assert picture[top + 8 : top + 16, left + 8 : left + 16].mean() == pytest.approx(brightness, abs=8)
    assert " recording.mp4\n" in (out / "SHA256SUMS").read_text()
    assert 'RELATIVE_MEDIA_URL="./recording.mp4"' in (out / "bouts.eaf").read_text()


def test_pictures_that_come_too_fast_are_skipped_and_the_newest_is_taken() -> None:
    capture = Filmed(400, pause=0.001)
    camera, numbers = Camera("camera:0", capture), []
    for frame in camera.frames():
        time.sleep(0.02)
        numbers.append(frame.number)
    assert numbers == list(range(len(numbers))) and camera.skipped > 50
    assert camera.skipped + len(numbers) == 399  # the first picture tells the size


def test_a_camera_ends_when_the_user_says_so(tmp_path: Path) -> None:
    seen = []
    film(tmp_path, Filmed(10_000), lambda: seen.append(1) or len(seen) > 20)
    assert len(list(Video(tmp_path / "out" / "recording.mp4").frames())) <= 20


def test_a_signal_is_the_normal_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "pending", 0)
    threading.Timer(1.0, lambda: setattr(interrupts, "pending", signal.SIGINT)).start()
    out = film(tmp_path, Filmed(10_000))
    assert interrupts.pending == 0
    assert (out / "annotated.mp4").exists()


def test_a_folder_with_results_is_refused(tmp_path: Path) -> None:
    out = film(tmp_path, Filmed(20))
    before = (out / "recording.mp4").read_bytes()
    with pytest.raises(UserError, match="has frames.csv already; use another folder: -o DIR .*recording.mp4 -o DIR"):
        film(tmp_path, Filmed(20))
    assert (out / "recording.mp4").read_bytes() == before


def test_a_camera_without_pictures_is_a_line() -> None:
    with pytest.raises(UserError, match="camera:0 gives no picture"):
        Camera("camera:0", Filmed(0))


def test_a_camera_that_stalls_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(cameras, "PATIENCE", 0.3)
    capture = Filmed(99, pause=0.0)
    camera = Camera("camera:0", capture)
    capture.pause = 1.0
    assert list(camera.frames()) == []
    assert "camera:0 has given no picture for 0 s; ending" in capsys.readouterr().err


def test_the_command_plays_a_file_as_a_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(models, "open_model", lambda name, device="cpu": model())
    video = make(tmp_path / "a.mp4", 40)
    command = ["predict", f"camera:{video}", "--model", "squares", "--detector", "bright", "-o", str(tmp_path / "out")]
    assert bench.main(command) == 0
    shown = capsys.readouterr()
    assert "a.mp4: 160 x 120 pixels; to end: Ctrl-C, or q and Enter" in shown.err
    assert "tracks" in shown.out
    assert (tmp_path / "out" / "people.csv").exists()


def test_a_file_plays_at_its_own_rate(tmp_path: Path) -> None:
    capture = open_capture(str(make(tmp_path / "a.mp4", 20, rate=40)))
    start = time.monotonic()
    while capture.read()[0]:
        pass
    assert time.monotonic() - start >= 0.45


def test_a_window_without_a_display_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("tkinter")
    monkeypatch.setenv("DISPLAY", ":97")
    monkeypatch.setattr(models, "open_model", lambda name, device="cpu": pytest.fail("the model is loaded first"))
    command = ["predict", "camera:0", "--show", "--model", "squares", "-o", str(tmp_path / "out")]
    assert bench.main(command) == 2
    error = capsys.readouterr().err
    assert "--show needs a display" in error and error.count("\n") == 1


def test_a_window_shows_every_scored_frame(tmp_path: Path) -> None:
    shown = []

    class Wall(LiveWindow):
        def __init__(self) -> None:
            self.closed = False

        def show(self, picture: np.ndarray) -> None:
            shown.append(picture)

    camera = Camera("camera:0", Filmed(20))
    job = Job(camera, model(), FaceSource(Bright(), 7.5, causal=True), tmp_path)
    done = predict_camera(job, BOUTS, Wall())
    assert len(shown) == done.frames and shown[0].shape == (120, 160, 3)


def test_live_looks_follow_the_decoder() -> None:
    """With a cost a single frame does not change the state; without one each frame is decided by its own score."""
    scores = [0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1]
    rows = [ScoredFace(n / 10, n, "1", np.zeros(4), score) for n, score in enumerate(scores)]
    free, costly = LiveLooks(BoutOptions(0.5)), LiveLooks(BoutOptions(0.5, cost=0.15))
    assert [free.looks(row) for row in rows] == [score >= 0.5 for score in scores]
    # Evidence is 0.22 per frame; the lead is clipped to the cost before each frame: 0.07, 0.22 - 0.07...
    assert [costly.looks(row) for row in rows] == [True, True, False, True, False, False, False, False]
