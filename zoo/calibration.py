"""A model's calibration: what turns its log odds into those of the faces that a user has marked.

It is part of `config.json`, beside weights that stay as they are, and comes after the smoothing of scores:
``log odds = slope * log odds of the model + weights . features + bias``.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

LARGEST = 1000.0  # of slope and bias


@dataclass(frozen=True)
class ScoreCalibration:
    """Slope, bias and weights of features, and what they were fitted on.

    Attributes:
        slope: factor of the model's log odds. With 0 or more the order of faces stays.
        bias: added to the log odds.
        weights: of the backbone's features of the frame, in its first view; empty: features have no part in it.
        faces: marked faces it was fitted on, with a threshold or without.
        tracks: their number of tracks.
    """

    slope: Annotated[float, Meta(ge=0, le=LARGEST)]
    bias: Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
    weights: tuple[float, ...]
    faces: Annotated[int, Meta(ge=1)]
    tracks: Annotated[int, Meta(ge=1)]

    @property
    def changes_scores(self) -> bool:
        """False if only the model's threshold was fitted."""
        return (self.slope, self.bias) != (1.0, 0.0) or any(self.weights)
