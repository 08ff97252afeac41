"""`predict` on several videos and on folders: which there are, where results go, and what a failure changes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import bench
from benchmarks.video import pipeline
from benchmarks.video.inputs import SAMPLE, Given, find_videos, folder_names
from registry import UserError
from tests.benchmarks.video.parts import make, model
from zoo import models

OPTIONS = ["--model", "squares", "--detector", "bright", "--threshold", "0.21"]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("short") / "a.mp4", 12)


@pytest.fixture
def predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
    """Runs the command in a folder; returns its status, stdout and stderr, and how often the model was loaded."""
    loaded: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "open_model", lambda name, device="cpu": loaded.append(name) or model())

    def run(*arguments: str) -> tuple[int, str, str, int]:
        loaded.clear()
        status = bench.main(["predict", *arguments, *OPTIONS])
        out, err = capsys.readouterr()
        return status, out, err, len(loaded)

    return run


def test_one_file_has_the_folder_itself_and_several_have_one_each(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert find_videos(["a/walk.mp4"], out) == [Given(Path("a/walk.mp4"), out)]
    assert [one.out.name for one in find_videos(["a/walk.mp4", "b/talk.mp4"], out)] == ["walk", "talk"]


def test_a_folder_gives_the_videos_directly_in_it(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.mov", "._a.mov", "notes.txt", "c.jpg", "deep/d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    found = find_videos([str(tmp_path)], Path("out"))
    assert [(one.video.name, one.out) for one in found] == [("a.mov", Path("out/a")), ("b.MP4", Path("out/b"))]
    with pytest.raises(UserError, match="has no videos .*; folders in it are not searched"):
        find_videos([str(tmp_path / "folder.mp4")], Path("out"))


def test_names_that_clash_are_told_apart(tmp_path: Path) -> None:
    def names(*paths: str) -> list[str]:
        found = folder_names([Path(path) for path in paths])
        assert sorted(folder_names([Path(path) for path in reversed(paths)])) == sorted(found)
        assert len({name.casefold() for name in found}) == len(paths)
        assert not any(set(name) <= {".", " "} or "/" in name for name in found)
        return found

    assert names("x/a.mp4", "x/b.mp4") == ["a", "b"]
    assert names("x/a.mp4", "x/A.mov") == ["a.mp4", "A.mov"]
    assert names("x/a.mp4", "y/a.mp4", "y/b.mp4") == ["x_a.mp4", "y_a.mp4", "b"]
    assert names("1/x/a.mp4", "2/x/a.mp4") == ["1_x_a.mp4", "2_x_a.mp4"]
    assert names("x/../y/a.mp4", "x/a.mp4") == ["y_a.mp4", "x_a.mp4"]
    # Without its ending the name would be a folder above the one of results.
    assert names("...mp4", "..mp4") == ["video_...mp4", "video_..mp4"]
    assert names("x/a.mp4", "x_a.mp4", "y/a.mp4")[1:] == ["x_a", "y_a.mp4"]


def test_a_file_given_twice_is_scored_once(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    given = [str(tmp_path / "a.mp4"), str(tmp_path / "x" / ".." / "a.mp4"), str(tmp_path / "link.mp4"), str(tmp_path)]
    (tmp_path / "x").mkdir()
    assert find_videos(given, Path("out")) == [Given(tmp_path / "a.mp4", Path("out/a"))]


def test_a_file_of_the_name_of_the_sample_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_videos(["sample"], Path("out")) == [Given(SAMPLE, Path("out"))]
    Path("sample").touch()
    assert find_videos(["sample"], Path("out")) == [Given(Path("sample"), Path("out"))]


def test_a_failed_video_does_not_stop_the_others(tmp_path: Path, short: Path, predict: Callable) -> None:
    for name in ("a.mp4", "c.mp4", "d.mp4"):
        shutil.copy(short, name)
    Path("b.mp4").write_text("no video")
    (tmp_path / "out" / "c").mkdir(parents=True)
    (tmp_path / "out" / "c" / "run.json").write_text('{"settings": {}}')  # of another run
    status, out, err, loads = predict("a.mp4", "b.mp4", "c.mp4", "d.mp4", "-o", "out")
    assert (status, loads) == (1, 1)
    lines = err.splitlines()
    assert "video b.mp4 cannot be read" in lines[0] and len(lines) == 3
    assert "c.mp4: out/c has results of" in lines[1]
    assert lines[2] == "bench.py predict: 2 of 4 videos done; failed: b.mp4, c.mp4"
    assert [line.rpartition(" in ")[2] for line in out.splitlines()[-2:]] == ["out/a", "out/d"]
    whole = {path.name: path.read_bytes() for path in Path("out/a").iterdir()}
    assert set(whole) == {*pipeline.FILES, "SHA256SUMS"}

    # The same command keeps what is done, and makes up for what failed.
    shutil.copy(short, "b.mp4")
    shutil.rmtree("out/c")
    status, out, err, loads = predict("a.mp4", "b.mp4", "c.mp4", "d.mp4", "-o", "out")
    assert (status, err, out.splitlines()[-1]) == (0, "", "4 videos done, in out")
    assert {path.name: path.read_bytes() for path in Path("out/a").iterdir()} == whole
    assert Path("out/b/frames.csv").read_bytes() == whole["frames.csv"]


def test_what_cannot_be_read_is_told_before_the_model_is_loaded(short: Path, predict: Callable) -> None:
    Path("picture.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>')
    Path("picture.ppm").write_bytes(b"P6 2 2 255 " + bytes(12))
    Path("empty.mp4").touch()
    Path("folder").mkdir()
    for name in ("none.mp4", "picture.svg", "picture.ppm", "empty.mp4", "folder"):
        status, out, err, loads = predict(name, "-o", "out")
        assert (status, out, loads, err.count("\n")) == (2, "", 0, 1), err
        assert name in err
    status, out, err, loads = predict("none.mp4", "empty.mp4", "-o", "out")
    assert (status, loads) == (2, 0)
    assert err.splitlines()[-1] == "bench.py predict: none of 2 videos can be read"
    assert not Path("out").exists()


def test_boxes_are_of_one_video(short: Path, predict: Callable) -> None:
    shutil.copy(short, "a.mp4")
    Path("boxes.csv").write_text("frame,track,x1,y1,x2,y2\n")
    status, _, err, loads = predict("a.mp4", str(short), "--faces", "boxes.csv", "-o", "out")
    assert (status, loads) == (2, 0) and "--faces has the boxes of one video" in err
