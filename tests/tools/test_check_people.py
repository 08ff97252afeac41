"""Figures on labelled videos: which scored face a label belongs to, and what counts as a look."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from tools import check_people
from tools.check_people import covered, main, row_of
from tools.faces.labels import COLUMNS, LabelledFace

ROWS = pd.DataFrame(
    [
        [4 / 30, 4, "1", 10, 10, 50, 60, 0.9],
        [4 / 30, 4, "2", 100, 10, 140, 60, 0.2],
        [5 / 30, 5, "1", 11, 10, 51, 60, 0.8],
        [6 / 30, 6, "1", 11, 10, 51, 60, 0.1],
    ],
    columns=["time", "frame", "track", "x1", "y1", "x2", "y2", "score"],
)
LOOKS = pd.DataFrame([["1", 4 / 30, 6 / 30]], columns=["track", "start", "end"])


def face(frame: int, left: float) -> LabelledFace:
    return LabelledFace("0" * 64, (left, 12, left + 40, 58), "p", "not", "not", frame)


def test_a_label_belongs_to_the_box_that_overlaps_most_in_its_frame() -> None:
    rows = [row_of(face(*at), ROWS) for at in ((4, 12), (4, 98), (5, 12))]
    assert [row["score"] for row in rows if row is not None] == [0.9, 0.2, 0.8]
    assert row_of(face(4, 300), ROWS) is None and row_of(face(9, 12), ROWS) is None


def test_a_face_is_called_looking_within_a_look_of_its_own_track() -> None:
    assert [covered(row, LOOKS) for _, row in ROWS.iterrows()] == [True, False, True, False]


def test_the_command_counts_looks_false_looks_and_faces_without_a_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = SimpleNamespace(predict=lambda path, detector: ROWS, looks=lambda rows: LOOKS)
    monkeypatch.setattr(check_people, "load_model", lambda name: stub)
    lines = []
    for person in range(5):  # in each video: one look found, one missed, one face of each kind without a score
        path = tmp_path / "videos" / f"{person}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([person]))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        for frame, left, label in (
            (4, 10, "looking"),
            (6, 10, "looking"),
            (5, 10, "not"),
            (4, 100, "not"),
            (6, 300, "not"),
            (5, 300, "looking"),
        ):
            box = (left, 12, left + 40, 58)
            lines.append([sha256, "a/b", path.name, "MIT", *box, f"p{person}", label, label, frame])
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(",".join(map(str, line)) for line in [[*COLUMNS, "frame"], *lines]) + "\n")
    record = tmp_path / "out.json"
    main([str(tmp_path), str(labels), "--model", "stub", "--resamples", "10", "--record", str(record)])
    assert "66.7% of the faces got a score" in capsys.readouterr().out
    figures = json.loads(record.read_text())["models"]["stub"]["groups"]["all"]["figures"]
    assert figures["sensitivity"]["value"] == pytest.approx(1 / 3, abs=1e-3)
    assert figures["false rate"]["value"] == pytest.approx(1 / 3, abs=1e-3)


def test_a_frame_must_be_a_number(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(",".join([*COLUMNS, "frame"]) + "\n0,a/b,x,MIT,1,1,5,5,p,not,not,-1\n")
    with pytest.raises(SystemExit, match="line 2: the frame is no number from 0"):
        main([str(tmp_path), str(labels), "--model", "geometry"])
