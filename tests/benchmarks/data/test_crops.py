"""Crops against videos whose every frame and place can be told by its grey level."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.data import crops
from benchmarks.data.crops import cut_crops
from benchmarks.data.frames import frame_table
from benchmarks.data.pictures import open_picture
from registry import UserError

av = pytest.importorskip("av")

WIDTH, HEIGHT = 320, 192


def grey(frame):
    return 20 + 5 * frame


def picture(frame):
    """Grey of the frame's own level; a white square at x 200 .. 264, y 64 .. 128 that is black in odd frames."""
    image = np.full((HEIGHT, WIDTH, 3), grey(frame), np.uint8)
    image[64:128, 200:264] = 255 if frame % 2 == 0 else 0
    return image


def write_video(path, count, codec="libx264", rate=30):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.gop_size = 12
        for frame in range(1, count + 1):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(frame), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def table(rows):
    """Frame table of (clip, track, frame, x1, y1, x2, y2)."""
    clip, track, frame, x1, y1, x2, y2 = zip(*rows, strict=True)
    names = {"clip": clip, "track": track, "frame": frame, "x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return frame_table({**names, "person": "1", "label": 0, "image": "", "unique_id": ""})


def crop(root, clip, track, frame):
    return np.asarray(Image.open(root / "face_imgs" / clip / track / f"face_{frame:05d}.jpg")).astype(int)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_and_places_are_exact(tmp_path, codec):
    write_video(tmp_path / "videos/c.mp4", 40, codec)
    frames = [1, 2, 3, 11, 12, 13, 14, 25, 39, 40]
    corner = [("c", "corner", frame, 0.0, 0.0, 50.9, 40.9) for frame in frames]
    square = [("c", "square", frame, 200.7, 64.2, 264.9, 128.6) for frame in (7, 8)]
    half = [("c", "half", 8, 168.0, 64.0, 232.0, 128.0)]
    report = cut_crops(tmp_path, table(corner + square + half), workers=1)
    assert (report.written, report.there, report.complete) == (13, 0, True)
    for frame in frames:
        image = crop(tmp_path, "c", "corner", frame)
        assert image.shape == (224, 224, 3)
        assert abs(image.mean() - grey(frame)) < 2.5  # neighbours are 5 away
    assert crop(tmp_path, "c", "square", 7).mean() < 8 and crop(tmp_path, "c", "square", 8).mean() > 247
    mixed = crop(tmp_path, "c", "half", 8)
    assert abs(mixed[:, :100].mean() - grey(8)) < 4 and mixed[:, 124:].mean() > 245


def test_again_changes_nothing_and_goes_on(tmp_path):
    write_video(tmp_path / "videos/a.mp4", 12)
    shutil.copy(tmp_path / "videos/a.mp4", tmp_path / "videos/b.mp4")
    rows = [(clip, track, frame, 0, 0, 64, 64) for clip in "ab" for track in "tu" for frame in range(1, 13)]
    counted = []
    report = cut_crops(tmp_path, table(rows), workers=2, progress=counted.append)
    assert report.written == 48 and counted == [24, 24]
    files = sorted((tmp_path / "face_imgs").rglob("*"))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files if path.is_file()}
    assert not [path for path in files if path.suffix == ".part"]
    gone = tmp_path / "face_imgs/b/u/face_00007.jpg"
    gone.unlink()
    gone.with_name(".face_00007.jpg.1.part").write_bytes(b"half")  # of a process that was killed
    (tmp_path / "videos/a.mp4").unlink()  # all its crops are there: not needed any more
    again = cut_crops(tmp_path, table(rows), workers=1)
    assert (again.written, again.there, again.complete) == (1, 47, True)
    assert gone.read_bytes() == before[gone][0]
    assert all(path.stat().st_mtime_ns == date for path, (_, date) in before.items() if path != gone)
    assert {path for path in (tmp_path / "face_imgs").rglob("*") if path.is_file()} == before.keys()


def test_a_worker_that_is_killed_is_told_in_a_line(tmp_path, monkeypatch):
    write_video(tmp_path / "videos/a.mp4", 3)
    shutil.copy(tmp_path / "videos/a.mp4", tmp_path / "videos/b.mp4")
    rows = table([(clip, "t", 1, 0, 0, 64, 64) for clip in "ab"])
    monkeypatch.setattr(crops, "write_crop", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match="was killed, possibly out of memory; run the same command again"):
        cut_crops(tmp_path, rows, workers=2)


def test_a_bit_that_flips_is_noticed_and_cut_anew_where_asked_for(tmp_path):
    write_video(tmp_path / "videos/a.mp4", 3)
    rows = table([("a", "t", frame, 0, 0, 64, 64) for frame in (1, 2, 3)])
    cut_crops(tmp_path, rows, workers=1)
    path = tmp_path / "face_imgs/a/t/face_00002.jpg"
    sound = path.read_bytes()
    noticed = []
    for place in range(0, len(sound), 7):
        spoilt = bytearray(sound)
        spoilt[place] ^= 1 << place % 8
        path.write_bytes(spoilt)
        try:
            with open_picture(path) as picture:
                picture.load()
        except Exception:
            noticed.append(place)
    seal = sound.index(b"lamzoo crc32")
    # Bits of the comment that say there is a checksum: the picture is what it was.
    assert all(seal - 4 <= place < seal + 13 for place in {*range(0, len(sound), 7)} - {*noticed})
    assert cut_crops(tmp_path, rows, workers=1).there == 3
    again = cut_crops(tmp_path, rows, workers=1, verify=True)
    assert (again.damaged, again.written, again.there) == (1, 1, 2)
    assert path.read_bytes() == sound
    path.write_bytes(b"")
    assert "cut again: 1" in "\n".join(cut_crops(tmp_path, rows, workers=1, verify=True).lines())
    assert path.read_bytes() == sound
    path.unlink()
    os.mkfifo(path)
    assert cut_crops(tmp_path, rows, workers=1, verify=True).damaged == 1
    assert path.read_bytes() == sound


def test_what_cannot_be_cut_is_reported(tmp_path):
    write_video(tmp_path / "videos/short.mp4", 5)
    (tmp_path / "videos/broken.mp4").write_bytes(b"no video at all" * 99)
    whole = (tmp_path / "videos/short.mp4").read_bytes()
    (tmp_path / "videos/cut.mp4").write_bytes(whole[: len(whole) // 2])
    rows = [("short", "t", frame, 0, 0, 9, 9) for frame in (4, 5, 6, 7)]
    rows += [("short", "far", 1, 400, 0, 410, 9), ("short", "thin", 1, 5.2, 0, 5.9, 9)]
    rows += [(clip, "t", 1, 0, 0, 9, 9) for clip in ("broken", "cut", "absent")]
    report = cut_crops(tmp_path, table(rows), workers=1)
    assert report.written == 2 and report.past_end == {"short": 2} and report.outside == 2
    assert report.missing == ["absent"] and sorted(report.failed) == ["broken", "cut"] and not report.complete
    text = "\n".join(report.lines())
    assert "videos missing: 1\n  absent" in text and "  short 2" in text and "1 crops not cut" in text


def test_another_rate_goes_by_time(tmp_path):
    write_video(tmp_path / "videos/half.mp4", 10, rate=15)
    report = cut_crops(tmp_path, table([("half", "t", frame, 0, 0, 64, 64) for frame in (1, 3, 4, 5, 19)]), workers=1)
    assert report.other_rate == {"half": 15.0} and report.written == 5
    # Frame k of 30 a second is shown at (k - 1) / 30 s, where picture 1 + (k - 1) // 2 of 15 a second stands.
    for frame, shown in ((1, 1), (3, 2), (4, 2), (5, 3), (19, 10)):
        assert abs(crop(tmp_path, "half", "t", frame).mean() - grey(shown)) < 2.5


def full_size(root, scale, seed=0):
    """A video of 320 x 192, and boxes of faces anywhere in one `scale` times as large, in two tracks of 30 frames."""
    write_video(root / "videos/c.mp4", 30)
    random = np.random.default_rng(seed)
    rows = []
    for track in "tu":
        corners = random.uniform(0, [280 * scale, 160 * scale], (30, 2))
        rows += [("c", track, frame, x, y, x + 40, y + 32) for frame, (x, y) in enumerate(corners, start=1)]
    return rows


@pytest.mark.parametrize("scale", [1.5, 2, 3, 6.75])
def test_a_video_of_another_size_is_refused_before_a_crop_is_cut(tmp_path, scale):
    rows = full_size(tmp_path, scale)
    shutil.copy(tmp_path / "videos/c.mp4", tmp_path / "videos/a.mp4")  # its own boxes fit
    rows += [("a", "t", frame, 1, 1, 60, 60) for frame in range(1, 31)]
    with pytest.raises(UserError) as caught:
        cut_crops(tmp_path, table(rows), workers=2)
    said = str(caught.value)
    reach = np.array([row[5:] for row in rows]).max(axis=0)
    assert f"{tmp_path / 'videos/c.mp4'} has 320 x 192 pixels, but its boxes reach to {reach[0]:.0f} x" in said
    assert "video_540ss" in said and "\n" not in said
    assert not (tmp_path / "face_imgs").exists()


@pytest.mark.parametrize(
    ("size", "wanted"), [((960, 540), "1920 x 1080"), ((720, 540), "1440 x 1080"), ((960, 720), "1440 x 1080")]
)
def test_the_expected_size_is_named(tmp_path, monkeypatch, size, wanted):
    monkeypatch.setattr(f"{__name__}.WIDTH", size[0])
    monkeypatch.setattr(f"{__name__}.HEIGHT", size[1])
    write_video(tmp_path / "videos/c.mp4", 1)
    width, height = map(int, wanted.split(" x "))
    left = enumerate(range(0, width - 90, 60), start=1)
    boxes = [("c", "t", frame, x, 400, x + 100, height - 3) for frame, x in left]
    with pytest.raises(UserError, match=f"has {size[0]} x {size[1]} pixels, but its boxes reach .* {wanted} is exp"):
        cut_crops(tmp_path, table(boxes), workers=1)


def test_boxes_over_the_edge_are_no_other_size(tmp_path):
    """Ego4D's reach over the right and lower edge by up to 5 %, and single ones lie anywhere."""
    rows = full_size(tmp_path, 1)
    rows += [("c", "edge", frame, 300, 170, 336, 201) for frame in range(1, 31)]
    rows += [("c", "stray", 5, 700, 700, 720, 720)]
    report = cut_crops(tmp_path, table(rows), workers=1)
    assert (report.written, report.outside) == (90, 1)


def test_refusals(tmp_path, monkeypatch):
    rows = table([("c", "t", 1, 0, 0, 9, 9)])
    with pytest.raises(UserError, match="videos: no such folder"):
        cut_crops(tmp_path, rows)
    write_video(tmp_path / "videos/c.mp4", 2)
    Path(tmp_path / "face_imgs").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        cut_crops(tmp_path, rows, workers=1)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UserError, match="needs PyAV"):
        cut_crops(tmp_path, rows)
