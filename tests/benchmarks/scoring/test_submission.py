"""The submission file compared with the published one, and its checks."""

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.scoring.files import read_prediction_file
from benchmarks.scoring.submission import check_coverage, constant_scores, submission, with_frames, write_submission
from registry import UserError

TTA = Path(__file__).parents[2] / "golden" / "metrics" / "tta"


def test_published_submission(tmp_path):
    table = read_prediction_file(TTA / "pred_averaged.csv")
    assert submission(table) == json.loads((TTA / "submission.json").read_text())
    write_submission(tmp_path / "submission.json", table)
    assert (tmp_path / "submission.json").read_bytes() == (TTA / "submission.json").read_bytes()


def predictions(rows):
    return pd.DataFrame(rows, columns=["clip", "unique_id", "track", "score"])


@pytest.fixture
def tree(tmp_path):
    for name in ("v/t/00001_007.jpg", "v/t/00002_8.jpg", "v/u/00001_9.jpg"):
        (tmp_path / "videos_challenge" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos_challenge" / name).touch()
    return tmp_path


WHOLE = [("v", "9", "u", 0.1), ("v", "007", "t", 0.2), ("v", "8", "t", 0.3)]


def test_coverage(tree):
    for root in (tree, tree / "videos_challenge"):
        check_coverage(predictions(WHOLE), root)
    assert with_frames(predictions(WHOLE), tree)["frame"].tolist() == [1, 1, 2]
    with pytest.raises(
        UserError, match="preds.csv lacks 1 of the 3 rows of .*videos_challenge: video v, track t, unique id 8"
    ):
        check_coverage(predictions(WHOLE[:2]), tree, "preds.csv")
    with pytest.raises(UserError, match="has 1 rows that .* lacks: video w"):
        check_coverage(predictions([*WHOLE, ("w", "1", "t", 0.5)]), tree)
    with pytest.raises(UserError, match="lacks 1 .* has 1 rows"):  # the leading zeros matter
        check_coverage(predictions([WHOLE[0], ("v", "7", "t", 0.2), WHOLE[2]]), tree)
    (tree / "videos_challenge/v/t/00003_8.jpg").touch()
    with pytest.raises(UserError, match="has repeated rows"):
        check_coverage(predictions(WHOLE), tree)
    with pytest.raises(UserError, match="no such folder"):
        check_coverage(predictions(WHOLE), tree / "nowhere")


def test_constant_scores_are_explained():
    assert constant_scores(predictions(WHOLE)) is None
    assert constant_scores(predictions(WHOLE[:1])) is None
    every = constant_scores(predictions([(*row[:3], 0.5) for row in WHOLE]))
    assert every.startswith("all 3 scores are 0.5, so ")
    rows = [("v", str(i), "t", 0.125) for i in range(12)] + [("v", str(i), "u", i / 20) for i in range(12)]
    some = constant_scores(predictions(rows))
    assert "1 of 2 tracks have the same score in every frame, such as video v, track t (12 times 0.125)" in some


def test_validation_predictions_are_refused():
    with pytest.raises(UserError, match="validation format"):
        submission(pd.DataFrame({"clip": ["c"], "frame": [1], "track": ["t"], "score": [0.5]}))
