"""Scores of faces in photographs as `predict` gives them in a still video, and the head's angle as a reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.data.crops import stretched
from benchmarks.priors import face_mesh
from benchmarks.scoring.predict import probabilities
from benchmarks.video.scorer import cut, reframed, widened
from heads.base import Head, Window
from registry import UserError
from tools.faces.labels import LabelledFace, read_picture
from zoo.models import Model

UNKNOWN_ANGLE = 180.0  # degrees; ranks a face without a pose last
MESH_MARGIN = (0.25, 0.25, 0.25, 0.25)  # around the box, in its sides, for Face Mesh


def face_pictures(
    faces: Sequence[LabelledFace], pictures: Mapping[str, Path]
) -> Iterator[tuple[int, LabelledFace, np.ndarray]]:
    """Yield each face with its number and its picture ``(H, W, 3)``; each picture is read once.

    Raises:
        UserError: a picture cannot be read, or a box does not touch its picture.
    """
    by_picture: dict[str, list[int]] = {}
    for number, face in enumerate(faces):
        by_picture.setdefault(face.sha256, []).append(number)
    for sha256, numbers in by_picture.items():
        picture = read_picture(pictures[sha256])
        for number in numbers:
            if cut(picture, np.array(faces[number].box)) is None:
                raise UserError(f"a box of the picture {sha256} lies outside it; correct the labels file")
            yield number, faces[number], picture


@torch.inference_mode()
def features_of(model: Model, faces: Sequence[LabelledFace], pictures: Mapping[str, Path]) -> torch.Tensor:
    """Encode the crop of each face as `benchmarks.video.scorer.Scorer` does, ``(N, views, D)``; raises as above."""
    backbone = model.network.backbone
    encode = backbone.encoder(torch.device("cpu"))

    def pixels_at(picture: np.ndarray, rect: np.ndarray) -> torch.Tensor:
        crop = cut(picture, rect)
        assert crop is not None  # the smaller box lies in the picture
        return torch.from_numpy(backbone.preprocessing.resize_crop(stretched(crop) if model.square else crop))[None]

    found: dict[int, torch.Tensor] = {}
    for number, face, picture in face_pictures(faces, pictures):
        rect = widened(np.array(face.box), model.margin)
        pixels = pixels_at(picture, rect)
        if backbone.reframes:
            rect = reframed(rect, backbone.reframe(encode(pixels).float())[0].double().numpy())
            pixels = pixels if cut(picture, rect) is None else pixels_at(picture, rect)
        views = [encode(pixels.flip(2) if view == "flipped" else pixels).float()[0] for view in model.views]
        found[number] = torch.stack(views)
    return torch.stack([found[number] for number in range(len(faces))])


@torch.inference_mode()
def still_scores(head: Head, features: torch.Tensor) -> np.ndarray:
    """Score faces as in the middle of a video that shows each of them, still, for as long as its windows reach.

    All frames of such a window have the same features, and smoothing along the track changes nothing.

    Args:
        head: of the model.
        features: ``(N, views, D)`` from `features_of`.

    Returns:
        P(looking) ``(N,)``, the mean over the views.
    """
    count, views, _ = features.shape
    present = torch.ones(count, head.window, dtype=torch.bool)
    windows = [Window(features[:, view, None].expand(-1, head.window, -1), present) for view in range(views)]
    scores: np.ndarray = np.mean([probabilities(head(window)) for window in windows], axis=0)
    return scores


def head_angles(faces: Sequence[LabelledFace], pictures: Mapping[str, Path]) -> np.ndarray:
    """Degrees between each head's forward direction and the line to the camera by Face Mesh, ``(N,)``.

    `UNKNOWN_ANGLE` where it finds no pose.
    """
    estimator = face_mesh.Estimator()
    out = np.full(len(faces), UNKNOWN_ANGLE)
    for number, face, picture in face_pictures(faces, pictures):
        crop = cut(picture, widened(np.array(face.box), MESH_MARGIN))
        assert crop is not None  # the smaller box lies in the picture
        pose, _ = estimator(crop, np.full(2, math.nan))
        if pose is not None:
            out[number] = math.degrees(math.acos(math.cos(math.radians(pose[0])) * math.cos(math.radians(pose[1]))))
    return out
