"""CSV files: predictions, ground truth, rows of runs, face boxes from users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks.rows.find import RECORDS
from benchmarks.video.decode import Frame
from benchmarks.video.faces import GivenFaces, read_faces
from tests.fuzz.harness import Kind, command
from tests.fuzz.values import file_of, place, spoilt_csv

PREDICTIONS = [[clip, frame, 1.5, 2, 30, 40, "t1", 1, 0.1 * frame] for clip in ("c1", "c2") for frame in range(1, 6)]
TRUTH = [[clip, frame, 1.5, 2, 30, 40, "t1", frame % 2] for clip in ("c1", "c2") for frame in range(1, 6)]
TEST = [["v1", f"{frame}ab", "t1", 1, 0.1 * frame] for frame in range(1, 6)]
BOXES = [["frame", "track", "x1", "y1", "x2", "y2"], *([frame, "a", 1, 2, 30.5, 40] for frame in range(5))]
TIMES = [["time", "track", "x1", "y1", "x2", "y2"], *([frame / 10, "a", 1, 2, 30.5, 40] for frame in range(5))]
ROW = [
    ["split", "seed", "clip", "track", "frame", "label", "score"],
    *(["test", 0, clip, "t1", frame, frame % 2, 0.15 * frame] for clip in ("c1", "c2") for frame in range(1, 6)),
]


def _text(rows: list[list[Any]]) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def _write(folder: Path, case: bytes | str) -> None:
    place(folder / "case.csv", case)
    place(folder / "predictions.csv", _text(PREDICTIONS))
    place(folder / "truth.csv", _text(TRUTH))


def _write_test(folder: Path, case: bytes | str) -> None:
    _write(folder, case)
    for row in TEST:
        frame = row[1].removesuffix("ab")
        place(folder / "videos_challenge" / "v1" / "t1" / f"{int(frame):05d}_{row[1]}.jpg", b"")


def _score(folder: Path, case: object) -> None:
    command("score", "--groundtruth", folder / "truth.csv", "--predictions", folder / "case.csv", "--json")


def _score_truth(folder: Path, case: object) -> None:
    command("score", "--groundtruth", folder / "case.csv", "--predictions", folder / "predictions.csv")


def _fuse(folder: Path, case: object) -> None:
    command("fuse", folder / "predictions.csv", folder / "case.csv", "-o", folder / "out.csv", "--how", "rank")


def _smooth(folder: Path, case: object) -> None:
    command("smooth", folder / "case.csv", "-o", folder / "out.csv")


def _submit(folder: Path, case: object) -> None:
    command("submit", folder / "case.csv", "-o", folder / "out.json")
    json.loads((folder / "out.json").read_text(encoding="utf-8"))
    command("submit", folder / "case.csv", "-o", folder / "out.json", "--test-root", folder)


def _write_rows(folder: Path, case: bytes | str) -> None:
    record = json.loads((RECORDS / "synthlam" / "internlstm.json").read_text(encoding="utf-8"))
    record |= {"splits": {}, "diagnosis": None}
    for name, content in (("a", _text(ROW)), ("b", case)):
        place(folder / name / "predictions.csv", content)
        place(folder / name / "result.json", json.dumps(record).encode())


def _compare(folder: Path, case: object) -> None:
    from benchmarks.rows.predictions import common_frames, read_predictions

    common_frames(read_predictions(folder / "a", "test"), read_predictions(folder / "b", "test"))


def _faces(folder: Path, case: object) -> None:
    """Read the boxes and place them in a second of video."""
    given = GivenFaces(read_faces(folder / "case.csv"), 1 / 30)
    for number in range(30):
        given.place(Frame(number, number / 30, number, 0))
    given.finish()


KINDS = (
    Kind("predictions: score", file_of(spoilt_csv(PREDICTIONS)), _write, _score),
    Kind("ground truth: score", file_of(spoilt_csv(TRUTH)), _write, _score_truth),
    Kind("predictions: fuse", file_of(spoilt_csv(PREDICTIONS)), _write, _fuse),
    Kind("predictions: smooth", file_of(spoilt_csv(PREDICTIONS)), _write, _smooth),
    Kind("predictions: submit", file_of(spoilt_csv(TEST)), _write_test, _submit),
    Kind("rows of runs: compare", file_of(spoilt_csv(ROW)), _write_rows, _compare),
    Kind("face boxes: predict --faces", file_of(st.one_of(spoilt_csv(BOXES), spoilt_csv(TIMES))), _write, _faces),
)
