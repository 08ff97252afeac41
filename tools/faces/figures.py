"""Figures of scores on labelled faces, with intervals from a bootstrap over people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PREVALENCE = 0.15  # share of looking faces to which AP is reweighted, about that of first-person video
BINS = np.linspace(0, 1, 11)  # edges of the calibration bins
RESAMPLES = 1000
LEAST = 5  # faces of each class below which a group has no figures


@dataclass(frozen=True)
class Scored:
    """Scores of faces.

    Attributes:
        scores: ``(N,)``; higher means more likely looking. In [0, 1] if `called` is given.
        labels: ``(N,)`` 1 looking, 0 not.
        people: ``(N,)`` whose face it is.
        called: ``(N,)`` True where the face is called looking; None for scores that are no probabilities.
    """

    scores: np.ndarray
    labels: np.ndarray
    people: np.ndarray
    called: np.ndarray | None = None

    def of(self, chosen: np.ndarray) -> Scored:
        """The faces at which ``chosen (N,)`` is True."""
        called = None if self.called is None else self.called[chosen]
        return Scored(self.scores[chosen], self.labels[chosen], self.people[chosen], called)


Figure = dict[str, float | list[float]]


def figures(scored: Scored, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Figure]:
    """Compute each figure with its 95 % percentile interval over people.

    Returns:
        Name -> ``{"value": v, "interval": [low, high]}``; the names are those of `point_figures`.
    """
    names, person = np.unique(scored.people, return_inverse=True)
    value = point_figures(scored, np.ones(len(person)))
    random = np.random.default_rng(seed)
    draws = random.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
    drawn = [point_figures(scored, draw[person].astype(np.float64)) for draw in draws]
    out: dict[str, Figure] = {}
    for name in value:
        low, high = np.nanquantile([each.get(name, np.nan) for each in drawn], (0.025, 0.975)).tolist()
        out[name] = {"value": round(value[name], 4), "interval": [round(low, 4), round(high, 4)]}
    return out


def point_figures(scored: Scored, weight: np.ndarray) -> dict[str, float]:
    """Figures of weighted faces; none if a class is missing.

    Args:
        scored: N faces.
        weight: ``(N,)`` not negative.

    Returns:
        AUC; AP at `PREVALENCE`; and with `called`: balanced accuracy, sensitivity (share of looks found), false rate
        (share of not-looking faces called looking), ECE (mean gap between mean score and share of looks over `BINS`,
        weighted by faces).

    Example:
        >>> scores = np.array([0.9, 0.4, 0.6, 0.1])
        >>> faces = Scored(scores, np.array([1, 1, 0, 0]), np.arange(4), scores >= 0.5)
        >>> {name: round(value, 3) for name, value in point_figures(faces, np.ones(4)).items()}
        {'AUC': 0.75, 'AP at 15 %': 0.63, 'balanced accuracy': 0.5, 'sensitivity': 0.5, 'false rate': 0.5, 'ECE': 0.35}
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    there = weight > 0
    scored, weight = scored.of(there), weight[there]
    scores, looking = scored.scores, scored.labels == 1
    ours, others = weight[looking].sum(), weight[~looking].sum()
    if not ours or not others:
        return {}
    shifted = np.where(looking, weight * PREVALENCE / ours, weight * (1 - PREVALENCE) / others)
    out = {
        "AUC": float(roc_auc_score(looking, scores, sample_weight=weight)),
        "AP at 15 %": float(average_precision_score(looking, scores, sample_weight=shifted)),
    }
    if scored.called is not None:
        found = float(weight[scored.called & looking].sum() / ours)
        false = float(weight[scored.called & ~looking].sum() / others)
        out["balanced accuracy"] = (found + 1 - false) / 2
        out |= {"sensitivity": found, "false rate": false, "ECE": _calibration_error(scores, looking, weight)}
    return out


def _calibration_error(scores: np.ndarray, looking: np.ndarray, weight: np.ndarray) -> float:
    place = np.clip(np.digitize(scores, BINS) - 1, 0, len(BINS) - 2)
    gap = np.bincount(place, weight * (scores - looking), len(BINS) - 1)
    return float(np.abs(gap).sum() / weight.sum())


def calibration(scored: Scored) -> list[dict[str, float | int]]:
    """Faces, mean score and share of looks in each of `BINS` that has faces."""
    place = np.clip(np.digitize(scored.scores, BINS) - 1, 0, len(BINS) - 2)
    out: list[dict[str, float | int]] = []
    for number in np.unique(place):
        here = place == number
        mean, share = float(scored.scores[here].mean()), float((scored.labels[here] == 1).mean())
        out.append(
            {
                "from": round(float(BINS[number]), 1),
                "faces": int(here.sum()),
                "mean score": round(mean, 4),
                "share looking": round(share, 4),
            }
        )
    return out


def by_group(scored: Scored, groups: dict[str, np.ndarray], resamples: int = RESAMPLES) -> dict[str, dict]:
    """Figures of groups of faces.

    Args:
        scored: N faces.
        groups: name -> ``(N,)`` bool.
        resamples: of the bootstrap.

    Returns:
        Name -> faces, looking, and figures (none where a class has fewer than `LEAST` faces).
    """
    out = {}
    for name, chosen in groups.items():
        of_group = scored.of(chosen)
        looking = int(of_group.labels.sum())
        enough = min(looking, len(of_group.labels) - looking) >= LEAST
        out[name] = {
            "faces": len(of_group.labels),
            "looking": looking,
            "figures": figures(of_group, resamples) if enough else {},
        }
    return out


def best_cut(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the best balanced accuracy: the middle between two scores; the lowest of equally good ones.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` 1 looking, 0 not; both occur.

    Example:
        >>> best_cut(np.array([0.1, 0.3, 0.5, 0.9]), np.array([0, 0, 1, 1]))
        0.4
    """
    steps = np.unique(scores)
    cuts = np.concatenate([steps[:1], (steps[1:] + steps[:-1]) / 2])
    called = scores[None] >= cuts[:, None]
    looking = labels == 1
    balanced = called[:, looking].mean(axis=1) - called[:, ~looking].mean(axis=1)
    return float(cuts[balanced.argmax()])
