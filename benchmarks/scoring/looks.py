"""Decoding of scores along a track into frames that look.

A single frame looks if its score reaches the threshold. But looks last longer than one frame, so a track is treated
as a hidden Markov model with two states, looking and not looking. Each change of state has a cost, and the cheapest
path is found with the Viterbi algorithm (Viterbi 1967, "Error bounds for convolutional codes and an asymptotically
optimum decoding algorithm"). The evidence of a frame is its log odds above those of the threshold, times its duration.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.evaluation.calibration import log_odds

COST = 2 / 15  # log odds x seconds per change: two frames of SynthLAM whose odds are e times those of the threshold
GAP = 0.3  # seconds without a frame after which the decoding of a track restarts
LOOK_CUT = 1e-4  # scores closer to 0 and 1 are clipped, so that one frame cannot outweigh many
WAIT = 1000  # frames a stream may stay undecided before the currently better path is taken


def looks_at(
    thresholds: np.ndarray, scores: np.ndarray, starts: np.ndarray, frame_time: float, cost: float
) -> np.ndarray:
    """Find the frames that look, for several thresholds.

    Args:
        thresholds: ``(K,)``.
        scores: ``(N,)`` P(looking), one track after another.
        starts: ``(N,)`` bool, True at the first frame of each track; the first element is True.
        frame_time: seconds between frames of a track.
        cost: of a change of state, in log odds x seconds.

    Returns:
        ``(N, K)`` bool.
    """
    evidence = (log_odds(scores, LOOK_CUT)[:, None] - log_odds(thresholds, LOOK_CUT)) * frame_time
    looks = np.empty(evidence.shape, dtype=bool)
    for rows in np.split(np.arange(len(scores)), np.flatnonzero(starts[1:]) + 1):
        for column in range(len(thresholds)):
            looks[rows, column] = viterbi(evidence[rows, column], cost)
    return looks


def viterbi(evidence: Sequence[float] | np.ndarray, cost: float) -> np.ndarray:
    """Find the frames of one track that look.

    Example:
        >>> viterbi([1.0, -0.1, 1.0, -2.0], cost=0.5).tolist()
        [True, True, True, False]

    Args:
        evidence: N values, positive for looking; in the unit of the cost.
        cost: of a change of state.

    Returns:
        ``(N,)`` bool: the path with the highest sum of evidence minus costs.
    """
    decoder = Decoder(cost, wait=None)
    looks = [look for value in np.asarray(evidence, dtype=np.float64).tolist() for look in decoder.push(value)]
    return np.array([*looks, *decoder.finish()], dtype=bool)


class Decoder:
    """The Viterbi algorithm for one track, frame by frame, in constant memory.

    Args:
        cost: of a change of state; with 0 each frame is decided by its own evidence.
        wait: number of undecided frames at which the better path so far is taken; None: never.
    """

    def __init__(self, cost: float, wait: int | None = WAIT) -> None:
        self._cost = cost
        self._wait = wait
        self._lead: float | None = None  # of the best path that ends looking over the best that ends not looking
        # Per undecided frame: whether the best path to (not looking, looking) in the next frame looks in this one.
        self._before: list[tuple[bool, bool]] = []

    def push(self, evidence: float) -> list[bool]:
        """Add the next frame.

        Args:
            evidence: positive for looking, negative against; in the unit of the cost.

        Returns:
            The states of the frames that are decided now, in order: True if a frame looks.
        """
        if self._lead is None:
            self._lead = evidence
            return []
        before = self._lead >= self._cost, self._lead >= -self._cost
        self._before.append(before)
        self._lead = min(max(self._lead, -self._cost), self._cost) + evidence
        if before[0] == before[1]:
            return self._trace(before[0])
        if len(self._before) == self._wait:
            return self._trace(before[self._lead >= 0])
        return []

    @property
    def leading(self) -> bool:
        """Whether the newest frame looks as far as is known; later frames may decide otherwise."""
        return self._lead is not None and self._lead >= 0

    def finish(self) -> list[bool]:
        """Return the states of the remaining frames; the next frame starts a new track."""
        if self._lead is None:
            return []
        last = self._lead >= 0
        self._lead = None
        return [*(self._trace(self._before[-1][last]) if self._before else []), last]

    def _trace(self, state: bool) -> list[bool]:
        """Return the states of all undecided frames except the newest, given the last of them."""
        states = [state]
        for before in reversed(self._before[:-1]):
            state = before[state]
            states.append(state)
        self._before.clear()
        return states[::-1]
