"""Videos: sound ones of several containers, damaged, with times that jump, and files that are something else."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from hypothesis import strategies as st

from benchmarks.data.crops import cut_crops
from benchmarks.data.frames import frame_table
from tests.fuzz import pictures
from tests.fuzz.harness import Kind
from tests.fuzz.values import file_of, place, spoilt_bytes

HOME = Path(__file__).resolve().parents[1]
COUNT = 12  # frames


def _video(suffix: str, codec: str, times: list[int] | None = None, side: int = 64, count: int = COUNT) -> bytes:
    """Frames of noise; `times` in milliseconds, 30 a second where not given."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"v{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=30)
            stream.width = stream.height = side
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            base = Fraction(1, 1000) if times else Fraction(1, 30)
            stream.codec_context.time_base = base
            for number in range(count):
                noise = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(noise.repeat(8, 0).repeat(8, 1), format="rgb24")
                if side != 64:
                    frame = frame.reformat(side, side, stream.pix_fmt, interpolation="POINT")
                frame.pts, frame.time_base = (times[number] if times else number), base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()


def _sound() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()


def _declared(data: bytes, box: bytes, offset: int, form: str, *values: int) -> bytes:
    """An MP4 with other numbers at some place of its first box of a name."""
    at = data.index(box) + offset
    return data[:at] + struct.pack(form, *values) + data[at + struct.calcsize(form) :]


def _raw(width: int, height: int, rate: str = "30:1") -> bytes:
    head = f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C420jpeg\n".encode()
    return head + (b"FRAME\n" + bytes(96)) * 3


SOUND: dict[str, Callable[[], bytes]] = {
    "mp4": lambda: _video(".mp4", "libx264"),
    "mkv": lambda: _video(".mkv", "libx264"),
    "avi": lambda: _video(".avi", "mjpeg"),
    "mpeg-ts": lambda: _video(".ts", "libx264"),
    "mkv of jumping times": lambda: _video(".mkv", "mjpeg", [0, 33, 10**6, 10**9, *range(10**9 + 99, 10**9 + 107)]),
    "mkv of negative times": lambda: _video(".mkv", "mjpeg", list(range(-400, -400 + 33 * COUNT, 33))),
    "mp4 of one frame": lambda: _video(".mp4", "libx264", count=1),
    "sound only": _sound,
    "mp4, 65535 wide by its track": lambda: _declared(sound("mp4"), b"tkhd", 80, ">II", 65535 << 16, 65535 << 16),
    "mp4, 65535 wide by its codec": lambda: _declared(sound("mp4"), b"avc1", 28, ">HH", 65535, 65535),
    "mp4, of a thousand years": lambda: _declared(sound("mp4"), b"mvhd", 16, ">II", 1, 2**32 - 1),
    "mp4, no time base": lambda: _declared(sound("mp4"), b"mdhd", 16, ">I", 0),
    "raw, 16000 x 16000": lambda: _raw(16000, 16000),
    "raw, 2^31 wide": lambda: _raw(2**31 - 1, 2**31 - 1),
    "raw, no rate": lambda: _raw(8, 8, "0:0"),
    "raw, a frame a year": lambda: _raw(8, 8, "1:31536000"),
    "raw, a billion frames a second": lambda: _raw(8, 8, "1000000000:1"),
    "avi of 7168 x 7168": lambda: _video(".avi", "mjpeg", side=7168, count=1),
    "playlist of another file": lambda: b"#EXTM3U\n#EXTINF:1,\n../secret.mp4\n",
    "list of other files": lambda: b"ffconcat version 1.0\nfile c.mp4\n",
    "text": lambda: b"not a video\n" * 100,
    "zeros": lambda: bytes(10_000),
    "picture": lambda: pictures.sound("jpeg"),
    "bomb": lambda: pictures.sound("bomb png"),
}  # fmt: skip


@cache
def sound(name: str) -> bytes:
    """The bytes of one of `SOUND`."""
    return SOUND[name]()


_as_is = st.sampled_from(sorted(SOUND)).map(lambda name: (name, "as it is"))
_spoilt = st.sampled_from(["mp4", "mkv", "avi", "mpeg-ts", "mkv of jumping times", "sound only"]).flatmap(
    lambda name: st.tuples(st.just(name), spoilt_bytes(sound(name)))
)
CASES = st.one_of(_as_is, _spoilt, _spoilt, file_of(st.just(b"")).map(lambda what: ("file", what)))


def _write(folder: Path, case: tuple[str, Any]) -> None:
    import benchmarks.video.pipeline  # noqa: F401 - what it imports is not the case's
    import tests.benchmarks.video.parts  # noqa: F401
    from registry import load_plugin

    load_plugin(HOME / "parts" / "tiny.py")
    name, what = case
    place(folder / "videos" / "c.mp4", sound(name) if what == "as it is" else what)


def _frames(folder: Path, case: object) -> None:
    """As `predict` decodes."""
    from benchmarks.video.decode import Video

    video = Video(folder / "videos" / "c.mp4")
    last = None
    for frame in video.frames():
        assert last is None or frame.time > last.time
        frame.picture()
        frame.reduced(32)
        last = frame
    if last is not None:
        video.lost_at_end(last)
        list(video.frames(last))


def _crops(folder: Path, case: object) -> None:
    """As `prepare` cuts; a video that cannot be read is in its report."""
    boxes = dict(x1=1.0, y1=2.0, x2=40.0, y2=50.0)
    table = dict(clip="c", track="t", frame=[1, 2, 5, 30, 10**9], person="1", **boxes, label=0, image="", unique_id="")
    cut_crops(folder, frame_table(table), workers=1).lines()


def _predict(folder: Path, case: object) -> None:
    """From the video to annotated.mp4."""
    from benchmarks.video.bouts import BoutOptions
    from benchmarks.video.pipeline import predict_video
    from benchmarks.video.search import FaceSource
    from tests.benchmarks.video.parts import Bright, model

    source, options = FaceSource(Bright(), 5.0), BoutOptions(0.5, 0.0, 0.2)
    predict_video(folder / "videos" / "c.mp4", model(), source, options, folder / "out")


KINDS = (
    Kind("videos: frames", CASES, _write, _frames, megabytes=400),
    Kind("videos: crops of prepare", CASES, _write, _crops, megabytes=400, names_file=False),
    Kind("videos: predict", CASES, _write, _predict, seconds=20.0, megabytes=600),
)
