"""When frames are shown: late and negative starts, pauses, ends of other streams, and frames that are lost."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bench
from benchmarks.video.bouts import BoutOptions
from benchmarks.video.decode import Frame, Video
from benchmarks.video.faces import GivenFaces, read_faces
from benchmarks.video.pipeline import predict_video
from benchmarks.video.search import FaceSource
from tests.benchmarks.video.parts import Bright, av, make, model
from tests.fuzz.videos import Odd, painted, written
from zoo import models

FIELD = Path(__file__).parent / "field"


def made(path: Path, times: Sequence[int], sound: tuple[int, int] | None = None) -> Path:
    """A Matroska file with frames at milliseconds."""
    pictures = [painted(number, (64, 48)) for number in range(len(times))]
    path.write_bytes(written(Odd(".mkv", "mjpeg", tuple(times), sound=sound), pictures))
    return path


def lost(path: Path) -> int:
    video = Video(path)
    *_, last = video.frames()
    return last.lost + video.lost_at_end(last)


STEADY = [round(n * 1000 / 30) for n in range(45)]


@pytest.mark.parametrize(
    "start, sound, first",
    [
        (0, None, 0.0),
        (3000, None, 0.0),  # players call the earliest time of any stream 0
        (3000, (0, 6000), 3.0),
        (0, (2000, 9000), 0.0),
        (0, (0, 9000), 0.0),
        (-100, None, 0.0),
        (-100, (0, 3000), 0.0),
        (-400, (-400, 3000), 0.0),
        (2000, (500, 9000), 1.5),
    ],
)
def test_the_earliest_stream_starts_at_0(
    tmp_path: Path, start: int, sound: tuple[int, int] | None, first: float
) -> None:
    path = made(tmp_path / "a.mkv", [start + time for time in STEADY], sound=sound)
    times = [frame.time for frame in Video(path).frames()]
    np.testing.assert_allclose(times, first + np.array(STEADY) / 1000, atol=0.04)
    assert min(times) >= 0
    assert lost(path) == 0
    with av.open(str(path)) as container:  # as `ffmpeg -i` shifts it
        ours = [float(f.pts * f.time_base) - container.start_time / 1e6 for f in container.decode(video=0)]
    np.testing.assert_allclose(times, ours, atol=0.2)


def test_a_late_video_of_the_field_has_lost_nothing() -> None:
    assert lost(FIELD / "late.mkv") == 0
    assert [f.time for f in Video(FIELD / "late.mkv").frames()] == pytest.approx(np.arange(30) / 30, abs=1e-3)


def test_a_last_frame_that_stays_is_no_lost_frame(tmp_path: Path) -> None:
    path = made(tmp_path / "a.mkv", [*STEADY, 20_000])  # the container declares 20 s
    assert lost(path) == 0
    with av.open(str(tmp_path / "b.mkv"), "w") as container, av.open(str(path)) as source:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.duration = 10_000 if packet.pts == 20_000 else packet.duration
                packet.stream = stream
                container.mux(packet)
    assert Video(tmp_path / "b.mkv").expected > 800  # 30 s
    assert lost(tmp_path / "b.mkv") == 0


@pytest.mark.parametrize("sound", [None, (0, 10_000)])
def test_a_file_that_was_cut_has_lost_its_end(tmp_path: Path, sound: tuple[int, int] | None) -> None:
    path = made(tmp_path / "a.mkv", [round(n * 1000 / 30) for n in range(300)], sound=sound)
    assert lost(path) == 0
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    count = len(list(Video(path).frames()))
    assert 100 < count < 200
    assert count + lost(path) == pytest.approx(300, abs=15)


def test_a_tail_of_zeros_is_lost(tmp_path: Path) -> None:
    path = made(tmp_path / "a.mkv", [round(n * 1000 / 30) for n in range(300)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    count = len(list(Video(path).frames()))
    assert 100 < count < 200
    assert count + lost(path) == pytest.approx(300, abs=15)


def test_a_typical_frame_is_known_in_spite_of_pauses(tmp_path: Path) -> None:
    assert Video(FIELD / "gap.mp4").frame_time == pytest.approx(1 / 30)
    assert Video(FIELD / "plain.mp4").frame_time == 1 / 15
    random = np.random.default_rng(0)
    steps = random.choice([33, 34, 33, 5000], 60)
    path = made(tmp_path / "a.mkv", [0, *np.cumsum(steps).tolist()])
    assert Video(path).frame_time == pytest.approx(steps[steps < 100].mean() / 1000, rel=0.01)


def test_repeated_and_falling_times_still_increase(tmp_path: Path) -> None:
    one, other = make(tmp_path / "a.ts", frames=30), make(tmp_path / "b.ts", frames=30)
    (tmp_path / "c.ts").write_bytes(one.read_bytes() + other.read_bytes())  # the times begin again
    times = np.array([frame.time for frame in Video(tmp_path / "c.ts").frames()])
    np.testing.assert_allclose(times, np.arange(60) / 30, atol=2e-3)
    with av.open(str(one)) as source, av.open(str(tmp_path / "d.mkv"), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts = packet.dts = 0
                packet.stream = stream
                container.mux(packet)
    times = np.array([frame.time for frame in Video(tmp_path / "d.mkv").frames()])
    assert len(times) == 30 and (np.diff(times) > 0).all()


def test_boxes_in_a_pause_belong_to_no_frame(tmp_path: Path) -> None:
    lines = ["time,track,x1,y1,x2,y2", "0.1,a,0,0,9,9", "1.0,a,1,0,9,9", "15,a,2,0,9,9", "29.9,a,3,0,9,9"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    given = GivenFaces(read_faces(tmp_path / "a.csv"), 1 / 30)
    tracked = [one for n, time in enumerate([0.1, 30.0]) for one in given.place(Frame(n, time, n, 0))]
    tracked += given.finish()
    assert [one.boxes[:, 0].tolist() for one in tracked] == [[0.0], [3.0]]
    assert given.placed == 2


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


@pytest.mark.parametrize("start", [-100, 0])
def test_results_of_a_video_that_starts_before_0(tmp_path: Path, start: int) -> None:
    path = made(tmp_path / "a.mkv", [start + time for time in STEADY])
    source, options = FaceSource(Bright(), 7.5), BoutOptions(0.0, 0.0, 0.2)
    done = predict_video(path, model(), source, options, tmp_path / "out")
    assert (done.frames, done.lost, done.bouts) == (45, 0, 1)
    (clocks,) = re.findall(r"^(\S+) --> (\S+)$", (tmp_path / "out" / "bouts.vtt").read_text(), re.MULTILINE)
    assert [seconds(clock) for clock in clocks] == pytest.approx([0.0, 1.5], abs=0.05)
    values = re.findall(r'TIME_VALUE="([^"]*)"', (tmp_path / "out" / "bouts.eaf").read_text())
    assert [int(value) / 1000 for value in values] == pytest.approx([0.0, 1.5], abs=0.05)
    assert len(list(Video(tmp_path / "out" / "annotated.mp4").frames())) == 45


def test_the_seconds_of_a_video_with_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """One face in all frames: half a second of looking, a pause of half a minute, half a second."""
    (tmp_path / "boxes.csv").write_text(
        "frame,track,x1,y1,x2,y2\n" + "".join(f"{n},Ann,40,40,90,90\n" for n in range(30))
    )
    monkeypatch.setattr(models, "open_model", lambda name, device="cpu": replace(model(), threshold=0.0))
    arguments = [str(FIELD / "gap.mp4"), "--model", "squares", "-o", str(tmp_path / "out")]
    assert bench.main(["predict", *arguments, "--faces", str(tmp_path / "boxes.csv")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("30.5 s of video, 30 frames: 1 tracks, 30 scores")
    times = [frame.time for frame in Video(FIELD / "gap.mp4").frames()]
    looked = sum(min(after - before, 1 / 30) for before, after in zip(times, times[1:], strict=False)) + 1 / 30
    lines = (tmp_path / "out" / "bouts.csv").read_text().splitlines()
    durations = [float(line.split(",")[3]) for line in lines if line.startswith("Ann")]
    assert sum(durations) == pytest.approx(looked, abs=1e-3) == pytest.approx(1.0)
    drawn = [frame.time for frame in Video(tmp_path / "out" / "annotated.mp4").frames()]
    np.testing.assert_allclose(drawn, times, atol=1e-3)


@pytest.mark.parametrize("name", [b"http:x.mp4", b"concat:a", b"caf\xe9.mp4", b"a\nb.mp4", b"data:,x"])
def test_names_that_look_like_protocols_and_names_that_are_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, name: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "open_model", lambda name, device="cpu": model())
    path, out = os.fsdecode(name), os.fsdecode(name + b":out")
    Path(path).write_bytes(make(tmp_path / "plain.mp4", 30).read_bytes())
    options = ["--detector", "bright", "--detections", "7.5"]
    assert bench.main(["predict", path, "--model", "squares", "-o", out, *options]) == 0
    said = capsys.readouterr().out
    assert said.encode() and "30 frames: 2 tracks" in said
    assert len(list(Video(Path(out) / "annotated.mp4").frames())) == 30
    assert bench.main(["predict", "plain.mp4", "--model", "squares", "-o", "plain", *options]) == 0
    assert Path(out, "frames.csv").read_bytes() == Path("plain", "frames.csv").read_bytes()
