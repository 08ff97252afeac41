"""Two rows side by side: their difference, its interval, p, and the sentences that say what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.evaluation.compare import (
    Difference,
    Scored,
    difference,
    permutation_p,
    scored,
    sentence,
    without_each_clip,
)
from benchmarks.evaluation.metrics import lam_map
from benchmarks.rows.find import FoundRow, find_record
from benchmarks.rows.predictions import common_frames, read_predictions
from benchmarks.rows.schema import Result, bound_of, read_result
from benchmarks.rows.trainings import cluster_of, clusters_in, frames_of, scored_of, shared_in_words, trainings_of
from registry import UserError


@dataclass(frozen=True)
class ComparedRows:
    """Two rows on the same key frames.

    Attributes:
        rows: where they were found.
        split: `test` or `val`.
        results: their records.
        figures: of the two rows.
        found: the difference of their mean mAP, with its interval, in fractions.
        p: None if it was not computed, because a record has no scores.
        frames: number of key frames that both have.
        positives: of these, looking.
        clips: with these frames.
        warnings: sentences on frames that were left out.
    """

    rows: Sequence[FoundRow]
    split: str
    results: Sequence[Result]
    figures: tuple[Scored, Scored]
    found: Difference
    p: float | None
    frames: int
    positives: int
    clips: int
    warnings: Sequence[str]

    @property
    def names(self) -> list[str]:
        """Names of the rows; their paths if both have one name."""
        names = [result["name"] for result in self.results]
        return names if names[0] != names[1] else [str(row.folder or row.record) for row in self.rows]

    @property
    def cluster(self) -> str:
        """What was resampled, `clip` or `video`."""
        return "video" if "video" in {cluster_of(result, self.split) for result in self.results} else "clip"

    @property
    def pairing(self) -> str:
        """Which trainings the rows share, in words."""
        return shared_in_words(*(row.trainings for row in self.figures))

    @property
    def lines(self) -> list[str]:
        """What it all means, in sentences."""
        a, b = self.names
        lines = [sentence(a, b, self.found, self.p), *_single_seeds([a, b], self.figures), *self.warnings]
        if self.split == "val":
            fitted = [name for name, result in zip(self.names, self.results, strict=True) if result["fitted"]]
            lines += [
                f"{name}: smoothing or weights were fitted on val, so its figure is optimistic." for name in fitted
            ]
        return lines


def compare_rows(a: str, b: str, out: Path, split: str = "test", dataset: str = "synthlam") -> ComparedRows:
    """Compare two rows by their scores, or by their records if one of them is a record alone.

    Args:
        a: name or folder of a finished row, or a record.
        b: another.
        out: folder of the runs.
        split: `test` or `val`.
        dataset: of the rows.

    Raises:
        UserError: no such row, or the rows have no key frames in common.
    """
    rows = [find_record(name, out, dataset) for name in (a, b)]
    scores = all(row.folder is not None for row in rows)
    return (_from_scores if scores else _from_records)(rows, split)


def _from_scores(rows: list[FoundRow], split: str) -> ComparedRows:
    """Compare two rows by their scores, on the key frames that both have."""
    predictions = [read_predictions(row.folder, split) for row in rows if row.folder is not None]
    frames, places = common_frames(*predictions)
    labels, names = frames["label"].to_numpy(), frames["clip"].to_numpy(dtype=str)
    # An older record may not name the videos that the other does.
    known = max((row.result for row in predictions), key=lambda result: cluster_of(result, split) == "video")
    clips = clusters_in(known, split, names)
    if labels.min() == labels.max():
        raise UserError(f"the {len(labels)} key frames that both rows score are of one class, so mAP is undefined")
    scores, figures, warnings = [], [], []
    for row, place in zip(predictions, places, strict=True):
        own = np.stack([of_seed[place] for of_seed in row.scores.values()])
        of_seeds = dict(zip(row.result["seeds"], trainings_of(row.result), strict=True))
        trainings = [of_seeds.get(seed, frozenset()) for seed in row.scores]
        maps = [lam_map(each, labels).map or 0.0 for each in own]
        fixed = bound_of(row.result) is not None
        figures.append(scored([*row.scores], maps, without_each_clip(own, labels, clips), trainings, fixed))
        scores.append(own)
        if len(row.frames) > len(labels):
            warnings.append(
                f"Only {len(labels):,} of the {len(row.frames):,} key frames of {row.result['name']} are also in the "
                "other row."
            )
    found = _difference(figures[0], figures[1])
    p = None if found.too_few else permutation_p(found, scores[0], scores[1], labels, clips)
    results = [row.result for row in predictions]
    counts = len(labels), int(labels.sum()), len(np.unique(names))
    return ComparedRows(rows, split, results, (figures[0], figures[1]), found, p, *counts, warnings)


def _from_records(rows: list[FoundRow], split: str) -> ComparedRows:
    """Compare two rows by their records, which must be of the same key frames."""
    results = [read_result(row.record) for row in rows]
    figures = []
    for row, result in zip(rows, results, strict=True):
        of_row = scored_of(result, split)
        if of_row is None:
            raise UserError(f"{row.record} has no figures of {split} to compare; run the recipe again")
        figures.append(of_row)
    if frames_of(results[0], split) != frames_of(results[1], split):
        raise UserError(
            f"{rows[0].record} and {rows[1].record} are of different key frames, and records have no scores to join; "
            "run both recipes here"
        )
    own = results[0]["splits"][split]
    found = _difference(figures[0], figures[1])
    counts = own["windows"], own["positives"], own["clips"]
    return ComparedRows(rows, split, results, (figures[0], figures[1]), found, None, *counts, [])


def _difference(a: Scored, b: Scored) -> Difference:
    found = difference(a, b)
    if found is None:
        raise UserError(f"one of {len(a.clips)} clips has all frames of a class, so there is no interval over clips")
    return found


def _single_seeds(names: Sequence[str], figures: Sequence[Scored]) -> list[str]:
    """Warnings about rows with one seed of several possible ones."""
    rows = [(name, row) for name, row in zip(names, figures, strict=True) if not row.fixed]
    single = [name for name, row in rows if len(row.seeds) == 1]
    if len(single) == 2:
        return [
            "Each row has one seed, so the difference may be due to the seeds: run both again with --seeds 5 or more."
        ]
    if len(rows) == 1:  # beside a row without a spread
        return [
            f"{name} has one seed, so the difference may be due to it: run it with --seeds 5 or more."
            for name in single
        ]
    return [f"{name} has one seed, so its spread over seeds is taken from the other row." for name in single]
