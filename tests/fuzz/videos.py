"""Videos: sound ones of several containers, damaged, with times that jump, and files that are something else.

`ODD` are sound videos of the kinds that cameras, editors and browsers write: their frames, times and pictures are
compared with what went into them and with a second decoding.
"""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import groupby
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


# -- odd, but sound --------------------------------------------------------------------------------------------------

MATRICES = ((1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0),
            (0, -1, -1, 0))  # fmt: skip
FORMS = ((".mkv", "mjpeg"), (".mkv", "libx264"), (".webm", "libvpx"), (".mp4", "libx264"), (".mov", "mjpeg"),
         (".ts", "libx264"), (".mkv", "libvpx"))  # fmt: skip
NAMES = (b"a.v", b"http:x.v", b"concat:a", b"file:a.v", b"pipe:0", b"a:b:c", b"\xff\xfe.v", b"caf\xe9 \xe2\x82.v",
         b"%05d.v", b"a\nb.v", b"-o", b" x ", b"a;b|c.v", b"\x1b[31m.v", b"data:,x",
         b"subfile,,start,0,end,9,,:a")  # fmt: skip
RATE = 16_000  # of the sound


@dataclass(frozen=True)
class Odd:
    """A sound video.

    Attributes:
        suffix: of the container.
        codec: of the pictures.
        times: of the frames, in milliseconds, increasing.
        sizes: width and height of each frame.
        matrix: a, b, c, d of the display matrix; None: none.
        aspect: width of a pixel over its height.
        sound: start and end in milliseconds; None: silent.
        name: of the file, relative.
    """

    suffix: str
    codec: str
    times: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...] = ()
    matrix: tuple[int, int, int, int] | None = None
    aspect: tuple[int, int] = (1, 1)
    sound: tuple[int, int] | None = None
    name: bytes = b"a.v"


def turned(data: bytes, matrix: Sequence[float]) -> bytes:
    """An MP4 of one track with the display matrix a, b, c, d."""
    a, b, c, d = (round(value * (1 << 16)) for value in matrix)
    return _declared(data, b"tkhd", 44, ">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)


def joined(suffix: str, pictures: Sequence[np.ndarray]) -> bytes:
    """A video of pictures ``(H, W, 3)`` of any sizes at 30 frames a second, each a JPEG."""
    times = tuple(round(number * 1000 / 30) for number in range(len(pictures)))
    return written(Odd(suffix, "mjpeg", times), pictures)


def written(made: Odd, pictures: Sequence[np.ndarray]) -> bytes:
    """The bytes of a video: each run of pictures of one size is encoded by itself, and all packets are joined."""
    options = {"mjpeg": {}, "libvpx": {"lag-in-frames": "0"}, "libx264": {"bf": "2", "crf": "10"}}[made.codec]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"v{made.suffix}"
        with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
            stream: Any = container.add_stream(made.codec, rate=30)
            own = stream.codec_context
            own.height, own.width = pictures[0].shape[:2]
            own.pix_fmt = "yuvj420p" if made.codec == "mjpeg" else "yuv420p"
            own.time_base, own.options, own.sample_aspect_ratio = Fraction(1, 1000), options, Fraction(*made.aspect)
            packets = []
            if made.sound is not None:
                sound: Any = container.add_stream("mp2", rate=RATE)
                packets += _sound_packets(made.sound, sound)
            shown = zip(made.times, pictures, strict=True)
            for number, (shape, group) in enumerate(groupby(shown, key=lambda one: one[1].shape)):
                if number:
                    own = av.CodecContext.create(made.codec, "w")
                    own.height, own.width = shape[:2]
                    own.pix_fmt, own.time_base, own.framerate = stream.pix_fmt, Fraction(1, 1000), Fraction(30)
                    own.options, own.sample_aspect_ratio = options, Fraction(*made.aspect)
                for time, picture in group:
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame.pts, frame.time_base = time, Fraction(1, 1000)
                    packets += _of_stream(stream, own.encode(frame))
                packets += _of_stream(stream, own.encode())
            container.start_encoding()
            for packet in sorted(packets, key=lambda one: one.dts * one.time_base):
                container.mux(packet)
        data = path.read_bytes()
    return data if made.matrix is None else turned(data, made.matrix)


def _of_stream(stream: Any, packets: Sequence[Any]) -> Sequence[Any]:
    for packet in packets:
        packet.stream = stream
    return packets


def _sound_packets(span: tuple[int, int], stream: Any) -> Iterator[Any]:
    start, end = (round(at * RATE / 1000) for at in span)
    for at in range(start, end, 1152):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
        yield from stream.encode(frame)
    yield from stream.encode()


def painted(number: int, size: tuple[int, int]) -> np.ndarray:
    """A dark picture with a bright square in its middle, and a brightness that tells the frame."""
    width, height = size
    picture = np.full((height, width, 3), 16 + 4 * (number % 16), np.uint8)
    picture[height // 4 : 3 * height // 4, width // 4 : width // 2] = 220
    return picture


@st.composite
def odd_videos(draw: st.DrawFn) -> Odd:
    """Draws sound videos: variable rates, pauses, late and negative starts, sizes that change, and so on."""
    suffix, codec = draw(st.sampled_from(FORMS))
    count = draw(st.integers(1, 24))
    steps = {
        "steady": st.just(33),
        "slow": st.just(200),
        "varying": st.sampled_from([17, 33, 34, 66, 100]),
        "pauses": st.sampled_from([33] * 8 + [2000, 30_000]),
    }[draw(st.sampled_from(["steady", "slow", "varying", "pauses"]))]
    start = draw(st.sampled_from([0, 0, 33, 500, 3000] + [-33, -100, -400] * (suffix == ".mkv" and codec != "libvpx")))
    times = [start]
    for _ in range(count - 1):
        times.append(times[-1] + draw(steps))
    size = draw(st.sampled_from([(64, 48), (96, 64), (48, 64), (64, 64)]))
    sizes = [size] * count
    if codec != "libx264" and suffix != ".mov":
        for at in draw(st.lists(st.integers(0, count - 1), max_size=3)):
            sizes[at:] = [draw(st.sampled_from([(64, 48), (128, 96), (32, 24), (48, 64), (96, 64)]))] * (count - at)
    movie = suffix in (".mp4", ".mov")
    sounds = [None, None, (0, 1000), (0, 9000), (2000, 4000)] if suffix in (".mkv", ".ts") else [None]
    return Odd(
        suffix,
        codec,
        tuple(times),
        tuple(sizes),
        draw(st.sampled_from(MATRICES)) if movie else None,
        draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2), (16, 15)])) if codec != "libvpx" else (1, 1),
        draw(st.sampled_from(sounds)),
        draw(st.sampled_from([NAMES[0], *NAMES])),
    )


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _write_odd(folder: Path, made: Odd) -> None:
    import benchmarks.video.pipeline  # noqa: F401 - what it imports is not the case's
    import tests.benchmarks.video.parts  # noqa: F401
    from registry import load_plugin

    load_plugin(HOME / "parts" / "tiny.py")
    pictures = [painted(number, size) for number, size in enumerate(made.sizes)]
    Path(folder, os.fsdecode(made.name)).write_bytes(written(made, pictures))


def _decode_odd(folder: Path, made: Odd) -> None:
    """Compares what is decoded with what went in."""
    from benchmarks.video.decode import Video

    with _inside(folder):
        video = Video(os.fsdecode(made.name))
        frames = list(video.frames())
        assert frames[-1].lost + video.lost_at_end(frames[-1]) == 0, "frames are said to be lost"
        with av.open(str(folder / os.fsdecode(made.name))) as container:
            stamps = [shown.pts for shown in container.decode(video=0)]
            base = float(container.streams.video[0].time_base)
        assert len(frames) == len(stamps) == len(made.times), "frames are missing"
        middle = len(frames) // 2
        assert list(video.frames(frames[middle])) == frames[middle + 1 :], "resumed frames are others"
    times = np.array([frame.time for frame in frames])
    # What Matroska holds of times before 0 depends on its clusters; then a second decoding says what they are.
    known = made.times[0] >= 0
    if known or None not in stamps:
        wanted = np.array(made.times) / 1000 if known else np.array(stamps) * base
        np.testing.assert_allclose(times - times[-1], wanted - wanted[-1], atol=2e-3)
    assert (np.diff(times) > 0).all()
    early = 0.0 if made.sound is None else max(0.0, (made.times[0] - made.sound[0]) / 1000)
    if known and (made.suffix == ".ts" or (made.sound is None and made.suffix not in (".mp4", ".mov"))):
        assert abs(times[0] - early) < 0.15, f"starts at {times[0]}, not {early}"
    assert times[0] >= 0
    quarter = made.matrix is not None and made.matrix[0] == 0
    width, height = made.sizes[0]
    across = made.aspect[0] / made.aspect[1]
    wanted = (round(width * max(across, 1)), round(height / min(across, 1)))
    assert video.size == (wanted[::-1] if quarter else wanted), f"size {video.size}"
    for number, frame in enumerate(frames):
        picture = frame.picture()
        assert picture.shape == (*video.size[::-1], 3)
        _check_square(picture, made, number)


def _check_square(picture: np.ndarray, made: Odd, number: int) -> None:
    """The bright square lies where it was painted, in the shape that players show."""
    width, height = made.sizes[number]
    corners = np.array([[width // 4, height // 4], [width // 2, 3 * height // 4]], dtype=float)
    a, b, c, d = made.matrix or (1, 0, 0, 1)
    across = made.aspect[0] / made.aspect[1]
    stretch = np.array([max(across, 1.0), 1 / min(across, 1.0)])
    placed = (corners - [width / 2, height / 2]) * stretch @ np.array([[a, b], [c, d]])  # around the middle
    shown = np.abs(np.array([width, height]) * stretch @ np.array([[a, b], [c, d]]))
    size = np.array(picture.shape[1::-1])
    placed = placed * (size / shown).min() + size / 2
    wanted = [*placed.min(axis=0), *(placed.max(axis=0) - 1)]
    rows, columns = np.nonzero(picture[..., 1] > 150)
    found = [columns.min(), rows.min(), columns.max(), rows.max()]
    assert np.abs(np.subtract(found, wanted)).max() <= 4, f"frame {number}: {found}, not {wanted}"


def _predict_odd(folder: Path, made: Odd) -> None:
    """From the video to annotated.mp4, whose frames are as many."""
    from benchmarks.video.bouts import BoutOptions
    from benchmarks.video.decode import Video
    from benchmarks.video.pipeline import predict_video
    from benchmarks.video.search import FaceSource
    from tests.benchmarks.video.parts import Bright, model

    with _inside(folder):
        source, options = FaceSource(Bright(), 5.0), BoutOptions(0.0, 0.0, 0.2)
        out = Path(os.fsdecode(made.name) + ".out")
        done = predict_video(Path(os.fsdecode(made.name)), model(), source, options, out)
        assert (done.frames, done.lost) == (len(made.times), 0)
        longest = (made.times[-1] - made.times[0]) / 1000
        assert longest - 0.5 < done.seconds <= longest + 3.1 + 30.1  # a late start, and the last frame
        drawn = Video(out / "annotated.mp4")
        assert len(list(drawn.frames())) == len(made.times), "the annotated video lacks frames"
        even = np.array(Video(os.fsdecode(made.name)).size) // 2 * 2
        assert drawn.size == tuple(even.tolist())
        assert "-" not in re.sub("-->|NOTE.*?\n\n", "", (out / "bouts.vtt").read_text(), flags=re.DOTALL)
        assert 'TIME_VALUE="-' not in (out / "bouts.eaf").read_text()


ODD = odd_videos()
KINDS = (
    Kind("videos: frames", CASES, _write, _frames, megabytes=400),
    Kind("videos: crops of prepare", CASES, _write, _crops, megabytes=400, names_file=False),
    Kind("videos: predict", CASES, _write, _predict, seconds=20.0, megabytes=600),
    Kind("videos: odd but sound", ODD, _write_odd, _decode_odd, seconds=20.0, megabytes=600),
    Kind("videos: odd but sound, predict", ODD, _write_odd, _predict_odd, seconds=60.0, megabytes=800),
)
