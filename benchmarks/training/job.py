"""A training job, shared by the seeds of a row, and the class weights of its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.config.recipe import Augment, Training
from benchmarks.features.windows import FeatureData
from benchmarks.pixels.windows import PixelData
from zoo.files.untrusted import below

REPORT = "training.json"  # in the folder of a seed, written after the weights


@dataclass(frozen=True)
class TrainingJob:
    """Model, data and settings of a row's trainings, which differ only in their seed.

    Attributes:
        head_config: `type` and arguments of the head, including `feature_dim` and `window`.
        backbone_config: `type` and arguments of a trainable backbone; None if the data are features.
        training: optimiser settings.
        data: labelled training windows.
        validation: labelled validation windows, which choose the epoch.
        weights: (2,) class weights of the loss.
        to_score: (split, view) -> windows to score.
        folder: receives `seed<N>/`.
        device: torch device.
        name: of the row.
        augment: of pixel windows in training.
        checkpoint: trained weights to use instead of training, of the head or of the whole model.
    """

    head_config: Mapping[str, Any]
    backbone_config: Mapping[str, Any] | None
    training: Training
    data: FeatureData | PixelData
    validation: FeatureData | PixelData
    weights: Tensor
    to_score: Mapping[tuple[str, str], FeatureData | PixelData]
    folder: Path
    device: str
    name: str
    augment: Augment = Augment()
    checkpoint: Path | None = None

    @property
    def weights_name(self) -> str:
        """File name of the trained weights: of a head, or of a whole model."""
        return "head.safetensors" if self.backbone_config is None else "model.safetensors"

    def seed_folder(self, seed: int) -> Path:
        """Folder for one seed's checkpoint, weights and report."""
        place = below(self.folder, f"seed{seed}/{REPORT}", "a training", written=True)
        return place.parent

    @property
    def steps(self) -> int:
        """Optimiser steps of one training in a single process."""
        return -(-len(self.data) // self.training.batch_size) * self.training.epochs


def class_weights(labels: np.ndarray, how: str | Sequence[float] | None) -> Tensor:
    """Compute the weights (2,) of not looking and looking in the cross entropy.

    Args:
        labels: 0 or 1. For `balanced`, the InternLSTM team's setting, of all frames of the training split; for
            `balanced_key_frames`, GazePose's setting, of its key frames that have a crop.
        how: both weight each class by the share of the other; two numbers are the weights; None weights both by 1.

    Example:
        >>> class_weights(np.array([0, 0, 1, 0]), "balanced").tolist()
        [0.25, 0.75]
    """
    if how is None:
        return torch.ones(2)
    if not isinstance(how, str):
        return torch.tensor(how)
    positives = float(np.mean(labels == 1))
    return torch.tensor([positives, 1 - positives])
