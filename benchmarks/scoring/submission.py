"""The challenge server's submission file, made from test predictions, and checks to run before uploading it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data.challenge import read_challenge
from benchmarks.scoring.files import is_test, match
from registry import UserError
from zoo.files.atomic import write_text

CONSTANT_ROWS = 10  # shorter tracks may have equal scores by chance, because heads saturate


def submission(table: pd.DataFrame) -> dict[str, Any]:
    """Build the content of an EvalAI submission for the Looking At Me challenge.

    Args:
        table: test predictions from `read_prediction_file`: clip, unique_id, track, score.

    Returns:
        The object that the server reads. Ids are strings; results are in the order of the table.

    Raises:
        UserError: the predictions are in validation format.
    """
    if not is_test(table):
        raise UserError(
            "the predictions are in validation format; the challenge takes the test format: "
            "video,unique_id,track,1,score"
        )
    rows = zip(table["clip"], table["unique_id"], table["track"], table["score"].tolist(), strict=True)
    results = [
        {"video_id": video, "unique_id": unique_id, "track_id": track, "label": 1, "score": score}
        for video, unique_id, track, score in rows
    ]
    return {"version": "1.0", "challenge": "ego4d_looking_at_me", "results": results}


def write_submission(path: str | Path, table: pd.DataFrame) -> None:
    """Write the submission file atomically."""
    write_text(Path(path), json.dumps(submission(table), ensure_ascii=False))


def check_coverage(table: pd.DataFrame, test_root: str | Path, name: str = "predictions") -> None:
    """Check that predictions have exactly the rows of the test tree.

    Args:
        table: test predictions.
        test_root: folder with `videos_challenge/`, or that folder itself.
        name: of the predictions, for messages.

    Raises:
        UserError: rows are missing or unknown; the message counts them and shows the first.
    """
    with_frames(table, test_root, name)


def with_frames(table: pd.DataFrame, test_root: str | Path, name: str = "predictions") -> pd.DataFrame:
    """Add the test tree's frame numbers to test predictions; arguments and errors as in `check_coverage`."""
    root = Path(test_root)
    top = root / "videos_challenge" if (root / "videos_challenge").is_dir() else root
    tree = read_challenge(top)
    tree = tree[["clip", "unique_id", "track", "frame"]]
    match(tree.drop(columns="frame"), table, (str(top), name))
    return table.merge(tree, on=["clip", "unique_id", "track"], how="left", validate="one_to_one")


def constant_scores(table: pd.DataFrame) -> str | None:
    """Return a warning about scores that do not depend on the frame, or None.

    Such scores are valid, but typical of a model that saw no frames, for example because features were missing.
    """
    score = table["score"]
    if len(table) > 1 and score.min() == score.max():
        return (
            f"all {len(table)} scores are {score.iloc[0]:g}, so the server cannot rank the frames. A model that sees "
            "no frames does this; check that features were found and weights were loaded"
        )
    tracks = score.groupby([table["clip"], table["track"]]).agg(["min", "max", "size"]).reset_index()
    constant = tracks[(tracks["min"] == tracks["max"]) & (tracks["size"] >= CONSTANT_ROWS)]
    if constant.empty:
        return None
    first = constant.iloc[int(np.argmax(constant["size"]))]
    return (
        f"{len(constant)} of {len(tracks)} tracks have the same score in every frame, such as video {first['clip']}, "
        f"track {first['track']} ({first['size']} times {first['min']:g}). A model that does not see the frames does "
        "this; check that their features were found"
    )
