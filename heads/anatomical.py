"""Looking at the camera by anatomy: the places of the irises, the direction of the head, and the lids."""

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from heads.base import Head, Window
from registry import HEADS, UserError

#: The features that the head takes; those of the backbone `face_geometry`, which describes them.
FEATURES = (
    *("left_x", "left_y", "right_x", "right_y"),
    *("left_lid", "right_lid"),
    *("forward_x", "forward_y", "forward_z"),
    *("roll", "scale", "confidence"),
)
UNIT = 89.5  # mm between the outer corners of the eyes, the unit of lengths in the features
HIDDEN = 0.6  # sideways part of the forward direction, 37 degrees, from which the farther eye has no weight
LOWEST = -9.0  # log odds of one frame; a slip of the networks must not outweigh many frames

Length = Annotated[float, Meta(gt=0, le=100)]  # mm or px
Offset = Annotated[float, Meta(ge=-100, le=100)]
Angle = Annotated[float, Meta(gt=0, le=90)]  # degrees
LogOdds = Annotated[float, Meta(ge=-20, le=20)]


@HEADS.register_module(name="anatomical")
class Anatomical(Head):
    """Log odds of looking at the camera from the features of `face_geometry`, without training.

    An eye turns around a centre that lies `depth` behind the middle between its corners, and `above` and `outward` of
    it; its iris is `radius` in front of the centre. With the iris displaced by d from that middle, and the head's
    forward direction f, both in the plane of the picture, the iris is straight in front of the centre, and the eye
    looks at the camera, where v = d + depth f - (outward, above) is 0. Otherwise the eye looks past the camera by
    angles x and y, whose sines are the parts of v over the radius. The log odds are::

        start - (x of both eyes / eye)^2 - (y of both eyes / vertical)^2 - (half the difference of their x / apart)^2
              - (angle of the head / head)^2 - (missing height of the upper lids / lids)^2

    Eyes differ in x if they squint, or if an iris was not found. An upper lid is low if the eye is shut or looks down.
    Lower lids do not count, because they rise in a smile. In small faces the place of the iris is uncertain by `blur`
    pixels. The square of that angle adds to the squares of `eye`, `vertical` and `apart`, and the log odds fall as
    between two normal distributions. The log odds of several frames are averaged, weighted by Face Mesh's confidence.

    Sizes are means of adults: 89.5 mm between the outer corners of the eyes and 32.5 mm between the inner ones (Farkas
    1994, "Anthropometry of the head and face"); 63.4 mm between the pupils (Dodgson 2004, "Variation and extrema of
    human interpupillary distance"), so that a pupil is (63.4 - (89.5 + 32.5) / 2) / 2 = 1.2 mm outwards; centre of
    rotation 13.5 mm behind the cornea and the edge of the iris 2.5 mm behind it (Le Grand 1980, "Physiological
    optics"). `start`, `eye`, `vertical` and `head` are rounded from a fit to labelled photographs; see
    docs/video-accuracy.md. Each constant is a parameter, and training may move it.

    Args:
        feature_dim: 12, of `FEATURES`.
        window: frames whose log odds are averaged.
        radius: from an eye's centre of rotation to the centre of its iris, mm.
        depth: of the centre of rotation behind the middle between the corners of the eye, mm.
        above: height of the iris above that middle when the eye looks straight ahead, mm.
        outward: its distance from that middle towards the temple, mm.
        eye: sideways angle of the eyes at which the log odds are lower by 1, degrees.
        vertical: the same upwards or downwards, where lids hide a part of the iris.
        apart: half the angle between the eyes at which they are lower by 1, degrees.
        head: angle of the head at which they are lower by 1, degrees.
        nod: pitch that Face Mesh finds in a head that faces the camera, degrees.
        lid: height of the upper lid over the middle between the corners of an open eye, mm.
        lids: missing height at which the log odds are lower by 1, mm.
        blur: error of the place of the iris, pixels of the source.
        start: log odds of an open eye in a large face that looks at the camera straight ahead.
        unseen: log odds where no face is recognised.

    Raises:
        UserError: the features are not those of `face_geometry`.
    """

    def __init__(
        self,
        feature_dim: int,
        window: int = 1,
        radius: Length = 11.0,
        depth: Length = 4.0,
        above: Offset = 1.3,
        outward: Offset = 1.2,
        eye: Angle = 4.5,
        vertical: Angle = 9.0,
        apart: Angle = 10.0,
        head: Angle = 18.0,
        nod: Annotated[float, Meta(ge=-45, le=45)] = 7.0,
        lid: Length = 4.0,
        lids: Length = 1.5,
        blur: Length = 0.5,
        start: LogOdds = 4.0,
        unseen: LogOdds = -3.0,
    ) -> None:
        super().__init__(feature_dim, window)
        if feature_dim != len(FEATURES):
            raise UserError(
                f"head anatomical takes the {len(FEATURES)} features of the backbone face_geometry, got {feature_dim}; "
                "add --backbone face_geometry"
            )
        # Under the names of the arguments, in their units.
        self.radius, self.depth = _constant(radius), _constant(depth)
        self.above, self.outward = _constant(above), _constant(outward)
        self.eye, self.vertical, self.apart = _constant(eye), _constant(vertical), _constant(apart)
        self.head, self.nod = _constant(head), _constant(nod)
        self.lid, self.lids = _constant(lid), _constant(lids)
        self.blur, self.start, self.unseen = _constant(blur), _constant(start), _constant(unseen)

    def forward(self, window: Window) -> Tensor:
        features = window.zeroed()
        odds = self.log_odds(features)
        weight = window.present * (features[..., -1].clamp(0, 1) + 1e-3)  # a window without a face has odds too
        mean = (odds * weight).sum(1) / weight.sum(1).clamp(min=1e-6)
        mean = torch.where(window.present.any(1), mean, self.unseen)
        return torch.stack([-mean / 2, mean / 2], dim=1)

    def log_odds(self, features: Tensor) -> Tensor:
        """Return the log odds ``(...)`` of frames with ``features (..., 12)``."""
        left, right, upper, forward, rest = features.split([2, 2, 2, 3, 3], dim=-1)
        confidence = rest[..., 2].clamp(0, 1)
        share = (0.5 - forward[..., 0] / (2 * HIDDEN)).clamp(0, 1)  # of the left eye

        # Eyes, in mm.
        side = self.outward * forward[..., 2]
        from_left, from_right = left[..., 0] * UNIT - side, right[..., 0] * UNIT + side
        miss_x = share * from_left + (1 - share) * from_right + self.depth * forward[..., 0]
        height = share * left[..., 1] + (1 - share) * right[..., 1]
        miss_y = height * UNIT + self.depth * forward[..., 1] - self.above
        uncertain = (self.blur * UNIT / (rest[..., 1].clamp(min=1.0) * self.radius)).square()
        odds = self.start
        for miss, tolerance in ((miss_x, self.eye), (miss_y, self.vertical)):
            width = tolerance.deg2rad().square() + uncertain
            odds = odds - (miss / self.radius).square() / width - (width / tolerance.deg2rad().square()).log() / 2
        seen = 4 * share * (1 - share)  # 1 where both eyes are seen alike, 0 where one is hidden
        difference = ((from_left - from_right) / (2 * self.radius)).square()
        odds = odds - seen * difference / (self.apart.deg2rad().square() + uncertain)

        # Head; the square of a chord stands for that of its angle.
        nod = self.nod.deg2rad()
        ahead = forward[..., 1] * nod.sin() + forward[..., 2] * nod.cos()
        odds = odds - 2 * (1 - ahead) / self.head.deg2rad().square()

        # Lids.
        lid = (share * upper[..., 0] + (1 - share) * upper[..., 1]) * UNIT
        odds = odds - ((self.lid - lid).clamp(min=0) / self.lids).square()
        return confidence * odds.clamp(min=LOWEST) + (1 - confidence) * self.unseen


def _constant(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(float(value)))
