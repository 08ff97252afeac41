"""Decoding: every frame, at its time, upright; and the errors for files that are not videos."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bench
from benchmarks.video.decode import Video
from registry import UserError
from tests.benchmarks.video.parts import av, draw, make
from tests.fuzz.videos import joined, painted


def numbered(frame: int) -> np.ndarray:
    """A picture whose brightness, in steps of eight, encodes the frame number."""
    return np.full((64, 96, 3), 8 * (frame % 30) + 8, dtype=np.uint8)


def test_every_frame_comes_once_at_its_time(tmp_path: Path) -> None:
    video = Video(make(tmp_path / "a.mp4", frames=29, rate=25, content=numbered))
    frames = list(video.frames())
    assert [frame.number for frame in frames] == list(range(29))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(29) / 25, atol=1e-6)
    np.testing.assert_allclose([f.picture().mean() for f in frames], [8 * n + 8 for n in range(29)], atol=3)
    assert video.size == (96, 64)
    assert video.frame_time == pytest.approx(0.04)
    assert video.lost_at_end(frames[-1]) == 0


def test_variable_rates_keep_the_times_of_the_file(tmp_path: Path) -> None:
    times = np.cumsum([0, *np.random.default_rng(0).choice([0.02, 0.033, 0.1, 0.25], 24)]).round(3)
    frames = list(Video(make(tmp_path / "a.mp4", frames=25, times=times.tolist(), content=numbered)).frames())
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=1e-3)


@pytest.mark.parametrize("place", [0, 1, 19, 20, 21, 57])
def test_frames_after_a_given_one_match_an_uninterrupted_decoding(tmp_path: Path, place: int) -> None:
    video = Video(make(tmp_path / "a.mp4", frames=60))
    frames = list(video.frames())
    after = list(video.frames(after=frames[place]))
    assert after == frames[place + 1 :]
    assert all(
        np.array_equal(one.picture(), other.picture()) for one, other in zip(after, frames[place + 1 :], strict=True)
    )


def test_threads_of_decoders_do_not_log_through_python(tmp_path: Path) -> None:
    """torchvision turns this on; it deadlocks when a decoder is freed while one of its threads logs."""
    path = make(tmp_path / "a.mp4", frames=3)
    av.logging.set_level(av.logging.ERROR)
    assert len(list(Video(path).frames())) == 3
    assert av.logging.get_level() is None


# Matrices of ISO 14496-12, 8.3.2: a b u c d v x y w, the point (x, y) goes to (a x + c y, b x + d y), y downwards. So
# (0, 1, -1, 0) takes what is right down: a quarter turn clockwise.
@pytest.mark.parametrize("matrix, turns", [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_rotation_is_honoured(tmp_path: Path, matrix: tuple[int, ...], turns: int) -> None:
    path = make(tmp_path / "a.mp4", frames=3, content=lambda frame: draw([(10, 5, 200)], (96, 64)))
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # version and flags, times, track, duration, reserved, layer, volume
    assert content[at : at + 4] == struct.pack(">i", 1 << 16)
    a, b, c, d = (value << 16 for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    video = Video(path)
    wanted = np.rot90(draw([(10, 5, 200)], (96, 64)), turns)
    assert video.size == wanted.shape[1::-1]
    for picture in (frame.picture() for frame in video.frames()):
        assert picture.shape == wanted.shape
        assert np.abs(picture.astype(int) - wanted).mean() < 4
    small = next(video.frames()).reduced(48)
    assert small.shape == tuple(side // 2 for side in wanted.shape[:2]) + (3,)


def test_a_damaged_middle_loses_frames_and_counts_them(tmp_path: Path) -> None:
    path = make(
        tmp_path / "a.mp4",
        frames=100,
        content=lambda f: np.random.default_rng(f).integers(0, 255, (64, 96, 3), np.uint8),
    )
    whole = list(Video(path).frames())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for packet in packets[30:36]:  # whole packets, including the lengths inside
        content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(content)
    frames = list(Video(path).frames())
    assert frames[-1].time == pytest.approx(whole[-1].time)
    assert len(frames) + frames[-1].lost == 100
    assert frames[-1].lost == 6
    assert all(
        np.array_equal(one.picture(), other.picture()) for one, other in zip(frames[:29], whole[:29], strict=True)
    )


def test_a_truncated_video_is_decoded_up_to_its_end(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mkv", frames=100, content=numbered)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = list(Video(path).frames())
    assert 10 < len(frames) < 90


def write_sound(path: Path) -> None:
    """Half a second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le" if path.suffix == ".wav" else "aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)


def test_files_that_are_not_videos_give_one_line_with_a_remedy(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            Video(path)
        text = str(caught.value)
        assert str(path) in text and "\n" not in text
        return text

    assert "does not exist" in message(tmp_path / "none.mp4")
    assert "is a folder" in message(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "is empty (0 bytes)" in message(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("this is no video" * 100)
    assert "is no video" in message(tmp_path / "text.mp4")
    write_sound(tmp_path / "sound.wav")
    assert "sound only" in message(tmp_path / "sound.wav")
    cut = make(tmp_path / "cut.mp4", frames=20)  # an mp4's index is at its end
    cut.write_bytes(cut.read_bytes()[:-2000])
    assert "cannot be read" in message(cut)
    with av.open(str(make(tmp_path / "broken.mp4", frames=20))) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray((tmp_path / "broken.mp4").read_bytes())
    for place, size in packets:
        content[place : place + size] = b"\xff" * size
    (tmp_path / "broken.mp4").write_bytes(content)
    assert "no frame can be decoded" in message(tmp_path / "broken.mp4")


def picture_file(path: Path, count: int = 1) -> Path:
    """A picture, or an animation, in the format of its name."""
    random = np.random.default_rng(0)
    first, *more = (Image.fromarray(random.integers(0, 255, (48, 64, 3), np.uint8)) for _ in range(count))
    first.save(path, **({"save_all": True, "append_images": more, "duration": 100} if more else {}))
    return path


TEXTS = {
    "a.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "a.srt": "1\n00:00:01,000 --> 00:00:02,000\nhello\n",
    "a.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\nhello\n",
    "a.ass": "[Script Info]\nScriptType: v4.00+\n\n[Events]\nDialogue: 0,0:00:01.00,0:00:02.00,,,,,,,a\n",
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\na.mp4\n#EXT-X-ENDLIST\n",
    "a.ffconcat": "ffconcat version 1.0\nfile a.mp4\n",
    "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "a.txt": "some text\n" * 30,
    "a.nfo": "some text\n" * 30,
    "a.ans": "\x1b[31msome text\n" * 30,
    "a.md": "# some text\n" * 30,
    "a.html": "<html><body>x</body></html>",
}


@pytest.mark.parametrize(
    "name", [*TEXTS, "a.png", "a.jpg", "a.gif", "a.webp", "a.bmp", "a.tiff", "a.ico", "a.ppm", "png.mp4"]
)
def test_pictures_lists_and_texts_give_one_line(tmp_path: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / name
    if name == "png.mp4":
        picture_file(tmp_path / "a.png").rename(path)
    elif name in TEXTS:
        path.write_text(TEXTS[name])
    else:
        picture_file(path)
    assert bench.main(["predict", str(path), "--model", "x", "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert str(path) in said and said.count("\n") == 1 and said.isascii()
    assert "picture" in said or "text" in said or "list" in said or "subtitles" in said or "no video" in said
    assert not (tmp_path / "out").exists()


def test_the_svg_and_the_heic_of_the_field_are_pictures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.svg is a picture \(svg\); give a video"):
        Video(Path(__file__).parent / "field" / "x.svg")
    path = make(tmp_path / "a.mp4", frames=2)
    path.write_bytes(path.read_bytes().replace(b"ftypisom", b"ftypheic", 1))
    with pytest.raises(UserError, match=r"is a picture \(heic\)"):
        Video(path)


def test_animations_are_videos(tmp_path: Path) -> None:
    for name in ("a.gif", "a.apng"):
        path = picture_file(tmp_path / name.replace("apng", "png"), 5)
        assert len(list(Video(path).frames())) == 5, name


def test_an_empty_packet_is_no_lost_frame(tmp_path: Path) -> None:
    """It says that the picture before it stays."""
    (tmp_path / "a.mkv").write_bytes(joined(".mkv", [painted(number, (64, 48)) for number in range(12)]))
    with av.open(str(tmp_path / "a.mkv")) as source, av.open(str(tmp_path / "a.nut"), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            used = av.Packet(0) if number == 5 else packet
            used.pts, used.dts, used.time_base, used.stream = packet.pts, packet.dts, packet.time_base, stream
            container.mux(used)
    video = Video(tmp_path / "a.nut")
    frames = list(video.frames())
    assert (len(frames), frames[-1].lost, video.lost_at_end(frames[-1])) == (11, 0, 0)
    np.testing.assert_allclose([frame.time for frame in frames], np.delete(np.arange(12), 5) / 30, atol=2e-3)
