"""Files of priors: head poses and landmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from hypothesis import strategies as st

from benchmarks.data.frames import frame_table
from benchmarks.priors.files import File
from tests.fuzz.harness import Kind
from tests.fuzz.values import file_of, place, spoilt_json

POSES: dict[str, list[float]] = {f"c1:t1:{frame}": [1.5 * frame, -2, 0.25] for frame in range(1, 4)}
POSES |= {"c1:t1:4": [6.0, -2, 0.25, 1, 0, 0], "c2:t1:7f:00005": [7.5, -2, 0.25]}
POINTS = {"c1": {"t1": {str(frame): [[0.1, 0.2, 0.0, 0.9]] * 5 for frame in range(1, 4)}}}
POINTS["c2"] = {"t1": {"7f": [[0.1, 0.2, 0.0, 0.9]] * 5}}


def _frames() -> pd.DataFrame:
    columns = dict(track="t1", frame=list(range(1, 6)), person="1", x1=0, y1=0, x2=9, y2=9, label=0)
    return frame_table({**columns, "clip": ["c1"] * 4 + ["c2"], "image": "", "unique_id": [""] * 4 + ["7f"]})


def _read(folder: Path, case: object) -> None:
    prior = File(folder, folder / "cache", str(folder / "pose.json"), str(folder / "points.json"))
    prior.read(_frames())
    prior.fingerprint()


def _write(folder: Path, case: tuple[str, bytes | str]) -> None:
    place(folder / "pose.json", json.dumps(POSES).encode())
    place(folder / "points.json", json.dumps(POINTS).encode())
    place(folder / case[0], case[1])


KINDS = (
    Kind("priors: head poses", st.tuples(st.just("pose.json"), file_of(spoilt_json(POSES))), _write, _read),
    Kind("priors: landmarks", st.tuples(st.just("points.json"), file_of(spoilt_json(POINTS))), _write, _read),
)
