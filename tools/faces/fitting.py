"""Nested cross-validation of a few constants of a head, over people."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize

from benchmarks.evaluation.calibration import log_odds, sigmoid
from heads.base import Head
from registry import UserError
from tools.faces.figures import Scored, best_cut
from tools.faces.scores import still_scores

FOLDS = 5  # of people, outer and inner
STEP = 0.2  # of the first simplex, in natural logarithms of a constant
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Nested:
    """Result of a nested cross-validation.

    Attributes:
        scored: scores of every face by constants and a threshold that were chosen without its person.
        constants: of each outer fold: name -> value.
    """

    scored: Scored
    constants: list[dict[str, Any]]


class Fitter:
    """Fits scale and offset of a head's log odds, and named arguments.

    Args:
        head: gives the class and the arguments' defaults.
        features: ``(N, views, D)`` of N faces.
        names: of the arguments that may be fitted.

    Raises:
        UserError: the head has no such argument, or its default is no number.
    """

    def __init__(self, head: Head, features: torch.Tensor, names: Sequence[str]) -> None:
        self._head, self._features = head, features
        known = inspect.signature(type(head).__init__).parameters.values()
        #: Values of the head's arguments that are decimal numbers.
        self.values = {
            each.name: float(torch.as_tensor(getattr(head, each.name)).detach())
            for each in known
            if isinstance(each.default, float)
        }
        absent = [name for name in names if name not in self.values]
        if absent:
            raise UserError(
                f"--fit: the head {type(head).__name__} has no constant {absent[0]}; "
                + (f"it has {', '.join(self.values)}" if self.values else "it has none")
            )

    def raw(self, values: dict[str, float]) -> np.ndarray:
        """Log odds ``(N,)`` of the head with these arguments, of the mean of its views' probabilities."""
        head, width = self._head, self._features.shape[2]
        if values:
            head = type(head)(width, head.window, **self.values | values).eval()
        return log_odds(still_scores(head, self._features))

    def fit(self, names: Sequence[str], labels: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
        """Minimise the log loss of faces ``chosen (N,)`` with labels ``(N,)``, each class weighted by half.

        Returns:
            scale (above 0), offset, and a value for each name.
        """
        starts = np.array([self.values[name] for name in names])
        looking = labels[chosen] == 1
        weight = np.where(looking, 0.5 / looking.sum(), 0.5 / (~looking).sum())

        def unpacked(at: np.ndarray) -> dict[str, float]:
            # Constants keep their sign: lengths and widths are above 0.
            own = dict(zip(names, (starts * np.exp(STEP * at[2:])).tolist(), strict=True))
            return {"scale": float(np.exp(at[0])), "offset": float(at[1]), **own}

        def loss(at: np.ndarray) -> float:
            odds = self.odds(unpacked(at))[chosen]
            return float(weight @ np.logaddexp(0, np.where(looking, -odds, odds)))

        simplex = np.vstack([np.zeros(2 + len(names)), np.eye(2 + len(names))])
        options = {"initial_simplex": simplex, "xatol": 10 * TOLERANCE, "fatol": TOLERANCE / 10, "maxiter": 400}
        return unpacked(minimize(loss, simplex[0], method="Nelder-Mead", options=options).x)

    def odds(self, fitted: dict[str, float]) -> np.ndarray:
        """Log odds ``(N,)`` with the constants that `fit` returned."""
        own = {name: value for name, value in fitted.items() if name not in ("scale", "offset")}
        return fitted["scale"] * self.raw(own) + fitted["offset"]


def nested(head: Head, features: torch.Tensor, scored: Scored, names: Sequence[str]) -> Nested:
    """Fit on all people but a fold, and score that fold; which arguments are fitted is chosen inside, by log loss.

    The candidates are scale and offset alone, then with the first argument, with the first two, and so on. The inner
    cross-validation over the remaining people takes the best of them; constants and threshold are then fitted on all of
    those people.

    Args:
        head: of the model.
        features: ``(N, views, D)`` of the faces.
        scored: labels and people of the faces.
        names: of the head's arguments.

    Raises:
        UserError: as `Fitter`, or there are fewer than 2 x `FOLDS` people.
    """
    if len(np.unique(scored.people)) < 2 * FOLDS:
        raise UserError(f"--fit needs at least {2 * FOLDS} people")
    fitter = Fitter(head, features, names)
    candidates = [list(names[:count]) for count in range(len(names) + 1)]
    scores, cuts = np.empty(len(scored.labels)), np.empty(len(scored.labels))
    constants = []
    for train, test in folds(scored, np.ones(len(scored.labels), dtype=bool)):
        losses = [_inner_loss(fitter, scored, train, candidate) for candidate in candidates]
        chosen = candidates[int(np.argmin(losses))]
        fitted = fitter.fit(chosen, scored.labels, train)
        odds = fitter.odds(fitted)
        scores[test] = sigmoid(odds[test])
        cuts[test] = best_cut(sigmoid(odds[train]), scored.labels[train])
        constants.append(
            {name: round(value, 4) for name, value in fitted.items()} | {"threshold": round(cuts[test][0], 4)}
        )
    return Nested(Scored(scores, scored.labels, scored.people, scores >= cuts), constants)


def folds(scored: Scored, chosen: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split the faces ``chosen (N,)`` into folds of whole people with about equal shares of looks: train, test bool."""
    from sklearn.model_selection import StratifiedGroupKFold

    places = np.flatnonzero(chosen)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    out = []
    for train, test in splitter.split(places, scored.labels[places], scored.people[places]):
        pair = np.zeros((2, len(chosen)), dtype=bool)
        pair[0, places[train]] = pair[1, places[test]] = True
        out.append((pair[0], pair[1]))
    return out


def _inner_loss(fitter: Fitter, scored: Scored, train: np.ndarray, names: Sequence[str]) -> float:
    """Mean log loss of left-out faces, each class weighted by half, with these arguments fitted."""
    losses = []
    for inner, held in folds(scored, train):
        odds = fitter.odds(fitter.fit(names, scored.labels, inner))[held]
        looking = scored.labels[held] == 1
        each = np.logaddexp(0, np.where(looking, -odds, odds))
        losses.append((each[looking].mean() + each[~looking].mean()) / 2)
    return float(np.mean(losses))
