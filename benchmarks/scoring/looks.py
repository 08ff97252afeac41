"""Scores along a track -> frames that look: the likeliest way through two states, not looking and looking.

A frame by itself looks if its score is the threshold or more. Looks last, though, and do not come and go with every
frame: so a track is taken as a hidden Markov model, in which each change of state costs something, and the way that
costs least is found (Viterbi 1967, "Error bounds for convolutional codes and an asymptotically optimum decoding
algorithm"). What speaks for looking is the score's log odds above the threshold's, for as long as the frame lasts.
"""

from __future__ import annotations

import math

import numpy as np

COST = 2 / 15  # of a change: two frames of SynthLAM whose odds are e times the threshold's. Log odds x seconds
GAP = 0.3  # seconds without a frame after which a track begins anew
SURE = 1e-4  # scores nearer to 0 and 1 count as this
WAIT = 1000  # frames for which no way is the better one, after which that is chosen which is at the time


def log_odds(score: float) -> float:
    """The logarithm of p / (1 - p) of a score in [0, 1], bounded."""
    bounded = min(max(score, SURE), 1 - SURE)
    return math.log(bounded / (1 - bounded))


def looks_at(
    thresholds: np.ndarray, scores: np.ndarray, starts: np.ndarray, frame_time: float, cost: float
) -> np.ndarray:
    """Which frames look at each of some thresholds.

    Args:
        thresholds: ``(K,)``.
        scores: ``(N,)``, those of a track one after another.
        starts: ``(N,)`` bool, the frames at which a track begins; the first is one.
        frame_time: seconds from one frame of a track to the next.
        cost: of a change of state.

    Returns:
        ``(N, K)`` bool.
    """
    levels = np.array([log_odds(threshold) for threshold in thresholds])
    evidence = (np.array([log_odds(score) for score in scores])[:, None] - levels) * frame_time
    tracks = np.split(evidence, np.flatnonzero(starts[1:]) + 1) if len(scores) else []
    return np.concatenate([np.empty((0, len(levels)), bool), *(viterbi(track, cost) for track in tracks)])


class Decoder:
    """Viterbi's algorithm for one track, frame by frame; what it keeps does not grow with the track.

    Args:
        cost: of a change of state; where it is 0, each frame is judged by itself.
    """

    def __init__(self, cost: float) -> None:
        self._cost = cost
        self._ahead: float | None = None  # by how much the best way that ends in looking is the better one
        self._before: list[tuple[bool, bool]] = []  # whether the ways to not looking, to looking, came from looking

    def push(self, evidence: float) -> list[bool]:
        """Take in the next frame.

        Args:
            evidence: for looking, above 0, or against it; in units of the cost.

        Returns:
            Which of the frames before it look, from the first on of which that was not known yet, as far as it is
            known now.
        """
        if self._ahead is None:
            self._ahead = evidence
            return []
        before = self._ahead >= self._cost, self._ahead >= -self._cost
        self._before.append(before)
        self._ahead = min(max(self._ahead, -self._cost), self._cost) + evidence
        if before[0] == before[1]:
            return self._trace(before[0])
        if len(self._before) == WAIT:
            return self._trace(before[self._ahead >= 0])
        return []

    def finish(self) -> list[bool]:
        """Which of the frames look that are left; the next frame is the first of another track."""
        if self._ahead is None:
            return []
        last = self._ahead >= 0
        self._ahead = None
        return [*(self._trace(self._before[-1][last]) if self._before else []), last]

    def _trace(self, state: bool) -> list[bool]:
        """The states of all frames that are not known but the newest, of which the last is given."""
        states = [state]
        for before in reversed(self._before[:-1]):
            state = before[state]
            states.append(state)
        self._before.clear()
        return states[::-1]


def viterbi(evidence: np.ndarray, cost: float) -> np.ndarray:
    """What `Decoder` finds, for many tracks of equal length at once.

    Args:
        evidence: ``(N, K)``, N frames of K tracks.
        cost: of a change of state.

    Returns:
        ``(N, K)`` bool, which frames look.
    """
    before = np.empty((len(evidence), 2, evidence.shape[1]), bool)
    ahead = evidence[0]
    for frame, row in enumerate(evidence[1:], start=1):
        before[frame] = ahead >= cost, ahead >= -cost
        ahead = np.clip(ahead, -cost, cost) + row
    looks = np.empty(evidence.shape, bool)
    looks[-1] = ahead >= 0
    for frame in range(len(evidence) - 1, 0, -1):
        looks[frame - 1] = np.where(looks[frame], before[frame, 1], before[frame, 0])
    return looks
