"""Wrong calls of the commands for end users: one line that says what to do, and no files left."""

from pathlib import Path

import pytest

from tests.conftest import check_refused
from zoo.weights import FOLDER

PREDICT = ["predict", "walk.mp4", "--model", "internlstm_nano", "-o", "out"]
BOXES = ["--faces", "boxes.csv"]  # so that no detector is asked for, whose network may not be installed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video, and with what is none."""
    from tests.benchmarks.video.parts import make

    folder = tmp_path_factory.mktemp("place")
    make(folder / "walk.mp4", frames=5)
    for name in ("folder", "full", "half", "runs/results/synthlam/broken"):
        (folder / name).mkdir(parents=True)
    for name, text in {
        "text.txt": "hello",
        "empty.mp4": "",
        "empty.csv": "",
        "few.csv": "frame,track,x1\n",
        "boxes.csv": "frame,track,x1,y1,x2,y2\n0,a,1,1,9,9\n",
        "broken.json": '{"a": ',
        "full/file": "",
        "runs/results/synthlam/broken/result.json": "{",
    }.items():
        (folder / name).write_text(text)
    (folder / "half" / "config.json").write_text((FOLDER / "internlstm_nano" / "config.json").read_text())
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict"], "required: VIDEO, -o/--out"),
        (["predict", "text.txt", *PREDICT[2:]], "it is no video"),
        (["predict", "folder", *PREDICT[2:]], "folder folder has no videos"),
        (["predict", "camera:0", "empty.mp4", *PREDICT[2:]], "camera:0 is scored alone"),
        (["predict", "camera:nowhere", *PREDICT[2:]], "camera:nowhere: no such device"),
        (["predict", "nowhere.mp4", "--show", *PREDICT[2:]], "--show is for a camera"),
        (["predict", "nowhere.mp4", *PREDICT[2:]], "nowhere.mp4 does not exist"),
        (["predict", "empty.mp4", *PREDICT[2:]], "is empty (0 bytes)"),
        (["predict", "", *PREDICT[2:]], "the value after predict is empty; give one"),
        ([*PREDICT[:-1], ""], "the value after -o is empty"),
        ([*PREDICT[:-1], "text.txt", *BOXES], "text.txt"),
        ([*PREDICT[:-1], "/proc/nothing", *BOXES], "cannot write /proc/nothing"),
        ([*PREDICT[:3], "internlstm_nan", "-o", "out", *BOXES], "did you mean 'internlstm_nano'?"),
        ([*PREDICT[:3], "internlstm_flip_tta", "-o", "out", *BOXES], "there is no model 'internlstm_flip_tta'"),
        ([*PREDICT[:3], "half", "-o", "out", *BOXES], "half"),
        (
            [*PREDICT[:3], "folder", "-o", "out", *BOXES],
            "folder/config.json: no such file",
        ),
        ([*PREDICT[:3], "text.txt", "-o", "out", *BOXES], "there is no model 'text.txt'"),
        ([*PREDICT, "--modle", "x"], "did you mean --model?"),
        ([*PREDICT, "--threshold", "2"], "--threshold is 2; it must be between 0 and 1"),
        ([*PREDICT, "--threshold", "nan"], "--threshold is nan"),
        ([*PREDICT, "--threshold", "high"], "invalid float value: 'high'"),
        ([*PREDICT, "--min-duration", "-1"], "--min-duration is -1"),
        ([*PREDICT, "--detections", "0"], "--detections is 0"),
        ([*PREDICT, "--faces", "nowhere.csv"], "nowhere.csv"),
        ([*PREDICT, "--faces", "folder"], "folder"),
        ([*PREDICT, "--faces", "few.csv"], "lacks y1, x2, y2; its first line must name"),
        ([*PREDICT, "--faces", "empty.csv"], "empty.csv cannot be read as CSV"),
        ([*PREDICT, "--faces", "few.csv", "--set", "side=64"], "--set is for the detector, which --faces replaces"),
        ([*PREDICT, "--detector", "centrface"], "did you mean 'centerface'?"),
        ([*PREDICT, "--set", "thresold=0.3"], "did you mean 'threshold'?"),
        ([*PREDICT, "--set", "threshold=high"], "must be float, got 'high'"),
        ([*PREDICT, "--set", "threshold"], "expected key=value"),
        ([*PREDICT, "--set", "side=0"], "side is 0; it must be at least 32"),
        ([*PREDICT, *BOXES, "--device", "gpu"], "must be cpu, cuda, cuda:N or mps"),
        ([*PREDICT, "--plugin", "nowhere.py"], "nowhere.py does not exist"),
        (
            ["smooth", "p.csv", "-o", "s.csv", "--window", "100000000000000000001"],
            "--window is 100000000000000000001; expected int <= 999",
        ),
        (["smooth", "p.csv", "-o", "s.csv", "--window", "0"], "--window is 0; expected int >= 1"),
        (
            ["index", "--root", ".", "--split", "val", "-o", "i.csv", "--stride", "100000000000000000001"],
            "expected int <= 1000000",
        ),
        (
            ["prepare", "--root", ".", "--workers", "100000000000000000001"],
            "--workers is 100000000000000000001; expected int <= 1000000",
        ),
        (
            ["extract", "--recipe", "probe", "--batch-size", "100000000000000000001"],
            "--batch-size is 100000000000000000001; expected int",
        ),
        (["report"], "required: -o/--output"),
        (["report", "-o", "folder"], "name a file: -o folder/report.html"),
        (["report", "-o", "r.html", "--out", "nowhere"], "run some, such as python bench.py --recipe probe"),
        (["report", "-o", "r.html"], "broken JSON"),
        (["report", "nothing", "-o", "r.html", "--out", "nowhere"], "no row nothing in nowhere/results/synthlam"),
        (["report", "-o", "r.html", "--dataset", "ego4"], "did you mean 'ego4d'?"),
        (["show"], "required: NAME"),
        (["show", "lstmm"], "did you mean 'lstm'?"),
        (["show", "folder"], "unknown name 'folder'"),
        (["show", "nowhere.json"], "nowhere.json"),
        (["show", "broken.json"], "broken JSON"),
        (["show", "internlstm", "--dataset", "ego4"], "did you mean 'ego4d'?"),
        (["show", "lstm", "gru"], "unrecognized arguments: gru"),
        (["doctor", "extra"], "unrecognized arguments: extra"),
        (["doctor", "--root", "nowhere"], "--root nowhere is not a folder"),
        (["doctor", "--root", "text.txt"], "--root text.txt is not a folder"),
        (["new-plugin", "nod"], "required: --kind"),
        (["new-plugin", "nod", "--kind", "heads"], "invalid choice: 'heads'"),
        (["new-plugin", "Nod", "--kind", "head"], "lower case letters, digits and _"),
        (["new-plugin", "n" * 300, "--kind", "head"], "at most 60"),
        (["new-plugin", "lstm", "--kind", "head"], "a head called 'lstm' exists"),
        (["new-plugin", "nod", "--kind", "head", "-o", "full"], "full exists and is not an empty folder"),
        (["new-plugin", "nod", "--kind", "head", "-o", "text.txt/x"], "cannot write text.txt/x"),
        (["export", "internlstm_nano"], "required: -o/--output"),
        (["export", "internlstm_nan", "-o", "e"], "did you mean 'internlstm_nano'?"),
        (["export", "internlstm_flip", "-o", "e"], "run it first: python bench.py --recipe internlstm_flip"),
        (["export", "internlstm_flip", "-o", "e", "--dataset", "ego4"], "did you mean 'ego4d'?"),
        (["export", "broken", "-o", "e"], "broken JSON"),
        (
            ["export", "folder", "-o", "e"],
            "folder/config.json: no such file",
        ),
        (["export", "internlstm_nano", "-o", "full"], "full exists and is not an empty folder"),
        (["export", "internlstm_nano", "-o", "text.txt"], "text.txt is not a folder"),
        (["export", "internlstm_nano", "-o", "e", "--seed", "3"], "--seed is for rows"),
        (
            ["export", "internlstm_nano", "-o", "e", "--push", "mine"],
            "--push mine: a repository name has the form",
        ),
    ],
    ids=lambda value: " ".join(value)[:80] if isinstance(value, list) else "",
)
def test_one_line_and_nothing_left(
    arguments: list[str], words: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = sorted(path for path in place.rglob("*") if path.is_file())
    check_refused(arguments, words, capsys)
    assert sorted(path for path in place.rglob("*") if path.is_file() and path.name != ".lock") == before
