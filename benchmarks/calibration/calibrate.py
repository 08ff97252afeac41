"""From finished runs and their marks to a calibrated copy of the model that scored them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibration.choice import strata_of, stratum_weights
from benchmarks.calibration.finished import EDGES, FinishedRun, read_run
from benchmarks.calibration.fit import FEW, Fit, MarkedFaces, best_cut, best_fit, cross_validate, group_faces
from benchmarks.calibration.gain import NAMES, Gain, measure_gain
from benchmarks.calibration.marks import read_marks
from benchmarks.calibration.page import wanted_frames
from benchmarks.system.progress import plural
from benchmarks.video.scorer import Scorer
from benchmarks.video.track import TrackedFrame
from registry import UserError
from zoo.calibration import LARGEST, ScoreCalibration
from zoo.cards import Card, Figure
from zoo.models import MAX_COST, Model, copy_model


@dataclass(frozen=True)
class MarkedRun:
    """A run with those of its faces that are marked looking or not looking.

    Attributes:
        run: finished.
        places: ``(M,)`` in its rows.
        labels: ``(M,)`` 1 looking, 0 not looking.
        unsure: number of faces marked `cannot say`, which are left out.
    """

    run: FinishedRun
    places: np.ndarray
    labels: np.ndarray
    unsure: int


@dataclass(frozen=True)
class Calibrated:
    """What was fitted, and how good it is.

    Attributes:
        model: that scored the runs.
        runs: with their marks.
        faces: all marked faces.
        tracks: number of their tracks.
        gain: over the model.
        fit: None if the model's scores stay as they are.
        threshold: None if that stays as it is too.
    """

    model: Model
    runs: Sequence[MarkedRun]
    faces: MarkedFaces
    tracks: int
    gain: Gain
    fit: Fit | None
    threshold: float | None

    def summary(self) -> str:
        """A line on the marks, and how they were divided to be held out."""
        looking, unsure = int(self.faces.labels.sum()), sum(each.unsure for each in self.runs)
        left_out = f" ({unsure} more marked 'cannot say' are left out)" if unsure else ""
        why = "" if self.faces.over == "tracks" else ", because their tracks are too few or of one class"
        return (
            f"{plural(len(self.faces.labels), 'marked face')} of {plural(self.tracks, 'track')}, {looking} looking, "
            f"{len(self.faces.labels) - looking} not{left_out}; held out by {self.faces.over}{why}"
        )


def read_marked_run(folder: Path, labels: Path) -> MarkedRun:
    """Read a finished run and its labels; errors as in `read_run` and `read_marks`."""
    run = read_run(folder)
    places, found = read_marks(labels, run)
    sure = found >= 0
    return MarkedRun(run, places[sure], found[sure], int((~sure).sum()))


def calibrate(runs: Sequence[MarkedRun], device: str) -> Calibrated:
    """Fit, cross-validate and decide what is worth keeping.

    Args:
        runs: one or more, scored by one model.
        device: torch device.

    Raises:
        UserError: the runs are of several models, one is given twice, or there are too few marks.
    """
    first = runs[0].run
    for number, each in enumerate(runs):
        if not first.same_model(each.run):
            raise UserError(f"{first.folder} and {each.run.folder} were scored by different models; use runs of one")
        if any(each.run.sha256 == other.run.sha256 for other in runs[:number]):
            raise UserError(f"{each.run.folder} is given twice; join its labels into one file")
    names = np.concatenate([each.run.rows["track"].to_numpy(dtype=str)[each.places] for each in runs])
    whose = np.repeat(np.arange(len(runs)), [len(each.places) for each in runs])
    times = np.concatenate([each.run.rows["time"].to_numpy(dtype=np.float64)[each.places] for each in runs])
    tracks = np.unique(np.stack([whose.astype(str), names]), axis=1, return_inverse=True)[1].ravel()
    labels = np.concatenate([each.labels for each in runs])
    order = np.lexsort((times, whose)).argsort()
    groups, over = group_faces(tracks, order, labels)
    model = first.open_model(device)
    faces = MarkedFaces(
        scores=np.concatenate([each.run.rows["score"].to_numpy(dtype=np.float64)[each.places] for each in runs]),
        features=np.concatenate([_features(each, model) for each in runs]),
        labels=labels,
        weights=np.concatenate([_weights(each) for each in runs]),
        groups=groups,
        over=over,
    )
    thresholds = np.repeat([each.run.threshold for each in runs], [len(each.places) for each in runs])
    gain = measure_gain(faces, thresholds, cross_validate(faces))
    found = best_fit(faces) if gain.calibrated_is_better else None
    threshold = None
    if found is not None:
        threshold = best_cut(found.scores(faces), faces)
    elif gain.moved_is_better:
        threshold = best_cut(faces.scores, faces)
    return Calibrated(model, runs, faces, len(np.unique(tracks)), gain, found, threshold)


def _weights(marked: MarkedRun) -> np.ndarray:
    """How many faces of its run each marked one stands for."""
    if not len(marked.places):
        return np.empty(0)
    strata = strata_of(marked.run.rows["score"].to_numpy(dtype=np.float64), marked.run.threshold)
    return stratum_weights(strata, marked.places)


def _features(marked: MarkedRun, model: Model) -> np.ndarray:
    """The backbone's features of marked faces if these are few, ``(M, D)``, as `predict` computes them; else D is 0."""
    size = model.network.backbone.feature_dim
    if size > FEW or not len(marked.places):
        return np.empty((len(marked.places), size if size <= FEW else 0))
    scorer = Scorer(model, keep_features=True)
    found: dict[tuple[int, str], np.ndarray] = {}
    for frame, rows in wanted_frames(marked.run, marked.places):
        boxes = rows[EDGES].to_numpy(dtype=np.float64)
        for row in scorer.push(TrackedFrame(frame, rows["track"].tolist(), boxes)):
            found[row.frame, row.track] = np.asarray(row.features)
    found |= {(row.frame, row.track): np.asarray(row.features) for row in scorer.finish()}
    rows = marked.run.rows.iloc[marked.places]
    return np.stack([found[key] for key in zip(rows["frame"].tolist(), rows["track"], strict=True)])


def write_calibrated(done: Calibrated, folder: Path) -> Card:
    """Write a copy of the model with its calibration and threshold, and say in its card where they come from.

    Args:
        done: with a threshold.
        folder: new or empty.
    """
    assert done.threshold is not None
    old = done.model.calibration
    slope, bias, weights = (old.slope, old.bias, np.array(old.weights)) if old else (1.0, 0.0, np.empty(0))
    factor = 1.0
    if (own := done.fit) is not None:
        factor = own.slope
        slope, bias = own.slope * slope, own.slope * bias + own.bias
        both = [each for each in (own.slope * weights, own.weights) if len(each)]
        weights = np.sum(both, axis=0) if both else np.empty(0)
    if slope > LARGEST or abs(bias) > LARGEST:
        raise UserError(
            f"the marks ask for a slope of {slope:g} and a bias of {bias:g}; the model cannot be calibrated"
        )
    calibration = ScoreCalibration(slope, bias, tuple(weights.tolist()), len(done.faces.labels), done.tracks)

    def changed(config: dict[str, Any], card: Card) -> tuple[dict[str, Any], Card]:
        # Evidence for a look is smaller by the slope, so a change must cost less by it for looks to end as before. What
        # was measured is left out: it is about the scores as they were.
        cost = min(config.get("cost", 0.0) * (factor or 1.0), MAX_COST)
        fitted = {"threshold": done.threshold, "cost": cost, "calibration": asdict(calibration)}
        return {key: value for key, value in config.items() if key != "measured"} | fitted, _card(done, card)

    return copy_model(done.model.place, folder, changed)


def _card(done: Calibrated, card: Card) -> Card:
    """The card of the original, with what was added."""
    looking, count = int(done.faces.labels.sum()), len(done.faces.labels)
    videos = ", ".join(
        f"{each.run.video['name']} (sha256 of its ends {each.run.video['sha256_of_ends']})" for each in done.runs
    )
    if done.fit is None:
        what = "Only its threshold was moved"
    else:
        features = f", {len(done.fit.weights)} features with weights" if len(done.fit.weights) else ""
        what = f"Its log odds were multiplied by {done.fit.slope:.3g}, {done.fit.bias:+.3g}{features}"
    training = (
        f"{card.training} Calibrated on {plural(count, 'marked face')} of {plural(done.tracks, 'track')}, {looking} "
        f"looking and {count - looking} not, in {videos}. {what}; the threshold {done.threshold:g} has the best "
        "balanced accuracy there."
    )
    limit = (
        f"Its calibration is for people, light and a camera like those of the marked faces; figures there are "
        f"cross-validated over {done.faces.over} and weighted like all faces of the video."
    )
    split = f"{done.runs[0].run.video['name'] if len(done.runs) == 1 else 'own videos'} marked"
    figures = []
    for name, before, after, change in zip(NAMES, done.gain.before, done.gain.after, done.gain.difference, strict=True):
        if done.fit is None and name != "balanced accuracy":
            continue
        value = done.gain.moved.value + before.value if done.fit is None else after.value
        told = (
            f"calibrate; {before.value:.3f} before"
            if done.fit is None
            else (
                f"calibrate; 95 % interval {after.low:.3f} to {after.high:.3f}; {before.value:.3f} before, difference "
                f"{change.text('+')}"
            )
        )
        figures.append(Figure(f"{name}, cross-validated", round(value, 3), split, told))
    return replace(
        card,
        title=f"{card.title}, calibrated",
        training=training,
        limits=(*card.limits, limit),
        figures=(*card.figures, *figures),
    )
