"""Pictures as FFmpeg's autorotate and its players show them: orientation, shape of pixels, and sizes that change."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.video.decode import Video
from tests.benchmarks.video.parts import av, draw, make
from tests.fuzz.videos import joined, turned

FIELD = Path(__file__).parent / "field"
# (a, b, c, d) of a display matrix, and what FFmpeg 8's autorotate (fftools/ffmpeg_filter.c) inserts for it.
AUTOROTATE = {
    (1, 0, 0, 1): [],
    (-1, 0, 0, 1): [("hflip", "")],
    (1, 0, 0, -1): [("vflip", "")],
    (-1, 0, 0, -1): [("hflip", ""), ("vflip", "")],
    (0, 1, -1, 0): [("transpose", "clock")],
    (0, 1, 1, 0): [("transpose", "cclock_flip")],
    (0, -1, 1, 0): [("transpose", "cclock")],
    (0, -1, -1, 0): [("transpose", "clock_flip")],
}


def filtered(path: Path, filters: Sequence[tuple[str, str]]) -> list[np.ndarray]:
    """The pictures of a file after FFmpeg's own filters."""
    out = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        nodes = [graph.add_buffer(template=stream)]
        nodes += [graph.add(name, argument) for name, argument in filters] + [graph.add("buffersink")]
        for before, after in itertools.pairwise(nodes):
            before.link_to(after)
        graph.configure()
        for frame in container.decode(stream):
            graph.push(frame)
            out.append(graph.pull().to_ndarray(format="rgb24"))
    return out


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("matrix", AUTOROTATE)
def test_all_eight_orientations_are_those_of_autorotate(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    content = draw([(10, 5, 200), (60, 5, 120)], (96, 64))
    path = make(tmp_path / "a.mp4", frames=3, content=lambda frame: content)
    path.write_bytes(turned(path.read_bytes(), matrix))
    video, wanted = Video(path), filtered(path, AUTOROTATE[matrix])
    assert video.size == wanted[0].shape[1::-1]
    for frame, one in zip(video.frames(), wanted, strict=True):
        assert difference(frame.picture(), one) < 1  # FFmpeg turns before it converts colours
        half = frame.reduced(48)
        assert half.shape == (one.shape[0] // 2, one.shape[1] // 2, 3)
        assert difference(half, one.reshape(half.shape[0], 2, half.shape[1], 2, 3).mean(axis=(1, 3))) < 3


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (0, 1, 0, 0), (2, 0, 0, 2), (1, 0.01, -0.01, 1)])
def test_damaged_and_scaled_matrices_turn_nothing(tmp_path: Path, matrix: tuple[float, ...]) -> None:
    path = make(tmp_path / "a.mp4", frames=2, content=lambda frame: draw([(10, 5, 200)], (96, 64)))
    plain = [frame.picture() for frame in Video(path).frames()]
    path.write_bytes(turned(path.read_bytes(), matrix))
    assert all(np.array_equal(f.picture(), one) for f, one in zip(Video(path).frames(), plain, strict=True))


@pytest.mark.parametrize("name, filters", [("mirror.mp4", "hflip"), ("vflip.mp4", "vflip"), ("plain.mp4", "null")])
def test_videos_of_the_field_are_shown_as_by_ffmpeg(name: str, filters: str) -> None:
    for frame, one in zip(Video(FIELD / name).frames(), filtered(FIELD / name, [(filters, "")]), strict=True):
        assert difference(frame.picture(), one) < 1


def test_pixels_that_are_not_square_are_widened_never_shrunk(tmp_path: Path) -> None:
    video = Video(FIELD / "sar.mp4")
    assert video.size == (640, 240)
    wanted = filtered(FIELD / "sar.mp4", [("scale", "iw*2:ih:flags=bicubic")])
    for frame, one in zip(video.frames(), wanted, strict=True):
        assert difference(frame.picture(), one) < 2
        assert frame.reduced(320).shape == (120, 320, 3)
    for aspect, size in (((1, 2), (96, 128)), ((16, 15), (102, 64)), ((8, 9), (96, 72))):
        path = make(tmp_path / "a.mp4", frames=2, content=lambda frame: draw([(10, 5, 200)], (96, 64)), aspect=aspect)
        assert Video(path).size == size
    path.write_bytes(turned(path.read_bytes(), (0, 1, -1, 0)))  # a quarter turn
    assert Video(path).size == (72, 96)
    assert next(Video(path).frames()).picture().shape == (96, 72, 3)


def test_a_circle_stays_a_circle_when_pixels_are_not_square(tmp_path: Path) -> None:
    y, x = np.mgrid[:120, :80]
    disc = np.where(((x - 40) * 2) ** 2 + (y - 60) ** 2 < 45**2, 220, 20).astype(np.uint8)[..., None].repeat(3, 2)
    path = make(tmp_path / "a.mp4", frames=2, content=lambda frame: disc, aspect=(2, 1))
    rows, columns = np.nonzero(next(Video(path).frames()).picture()[..., 1] > 120)
    assert np.ptp(columns) == pytest.approx(np.ptp(rows), abs=2) == pytest.approx(90, abs=3)


def test_a_size_that_changes_keeps_the_first_one(tmp_path: Path) -> None:
    plain, changed = Video(FIELD / "plain.webm"), Video(FIELD / "changeup.webm")
    assert plain.size == changed.size == (640, 480)
    for one, other in zip(plain.frames(), changed.frames(), strict=True):
        assert one.time == other.time
        assert difference(one.picture(), other.picture()) < 4
        assert difference(one.reduced(320), other.reduced(320)) < 4


def test_a_picture_of_another_shape_lies_between_bars(tmp_path: Path) -> None:
    # 96 x 64, then 64 x 96 with a square of 32 x 32 in its middle: shrunk by 2/3 to 43 x 64, bars of 26 and 27.
    tall = np.full((96, 64, 3), 100, np.uint8)
    tall[32:64, 16:48] = 220
    path = tmp_path / "a.mkv"
    path.write_bytes(joined(".mkv", [np.full((64, 96, 3), 60, np.uint8)] * 3 + [tall] * 3))
    video = Video(path)
    pictures = [frame.picture()[..., 1].astype(int) for frame in video.frames()]
    assert [picture.shape for picture in pictures] == [(64, 96)] * 6
    rows, columns = np.nonzero(pictures[4] > 160)
    assert np.ptp(rows) + 1 == pytest.approx(32 * 2 / 3, abs=1) and np.ptp(columns) == pytest.approx(
        np.ptp(rows), abs=1
    )
    assert (rows.mean(), columns.mean()) == (pytest.approx(31.5, abs=1), pytest.approx(47.5, abs=1))
    assert pictures[4][:, :25].max() < 20 and pictures[4][:, -25:].max() < 20
    assert pictures[4][:, 30:66].min() > 80


def test_many_changes_of_size_are_followed(tmp_path: Path) -> None:
    sizes = [(96, 64), (48, 32), (192, 128), (96, 64), (120, 80), (24, 16)]
    path = tmp_path / "a.mkv"
    contents = [np.full((height, width, 3), 30, np.uint8) for width, height in sizes]
    for content in contents:
        height, width = content.shape[:2]
        content[height // 4 : height // 2, width // 4 : width // 2] = 220
    path.write_bytes(joined(".mkv", contents))
    for frame in Video(path).frames():
        rows, columns = np.nonzero(frame.picture()[..., 1] > 125)
        assert (rows.min(), np.ptp(rows), columns.min(), np.ptp(columns)) == pytest.approx((16, 15, 24, 23), abs=2)


def test_the_shape_of_pixels_may_change_too(tmp_path: Path) -> None:
    wide = make(tmp_path / "a.ts", frames=10, content=lambda frame: np.full((64, 96, 3), 200, np.uint8), aspect=(2, 1))
    square = make(
        tmp_path / "b.ts", frames=10, content=lambda frame: np.full((64, 96, 3), 200, np.uint8), aspect=(1, 1)
    )
    both = tmp_path / "c.ts"
    both.write_bytes(wide.read_bytes() + square.read_bytes())
    pictures = [frame.picture()[..., 1] for frame in Video(both).frames()]
    assert {picture.shape for picture in pictures} == {(64, 192)}
    widths = [int((picture[32] > 100).sum()) for picture in pictures]
    assert widths[:10] == [192] * 10 and set(widths[10:]) == {96}
