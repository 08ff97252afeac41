"""What a backbone is: images in, one vector an image out, with its preprocessing, its weights and its fingerprint."""

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from backbones.encoding import Encoder, dtype_named, dtype_of, in_passes, moved
from registry import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_SIDE = 8192  # pixels that an image is resized to, whatever a stranger's file asks for
CPU_PASS = 4  # images, with 224 pixels a side: more of them leave the cache, fewer leave the product's units idle


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of one network; it belongs to the weights, so the backbone owns it.

    Attributes:
        size: side of the square that the network is fed, in pixels.
        resize: what the shorter edge is resized to first; at least ``size``.
        interpolation: PIL's filter, ``bicubic``, ``bilinear`` or ``nearest``.
        mean: of each channel, for values in [0, 1].
        std: of each channel.
        round_crop: where the margin to cut off is odd, round half of it as torchvision and timm do (to even), not down
            as transformers does: one pixel, and other features.
    """

    size: int
    resize: int
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    round_crop: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize <= MAX_SIDE:
            raise UserError(
                f"images cannot be resized to {self.resize} and cut to {self.size} pixels; 1 <= size <= resize <= "
                f"{MAX_SIDE}"
            )
        for name, values, low in (("mean", self.mean, -math.inf), ("std", self.std, 0.0)):
            if len(values) != 3 or not all(low < float(value) < math.inf for value in values):
                above = ", above 0" if low == 0 else ""
                raise UserError(f"the images' {name} is {values!r}; it has to be three numbers{above}")

    def resize_crop(self, image: Image.Image) -> np.ndarray:
        """Resize the shorter edge with PIL and cut the centre out: the convention of transformers' CLIP processor.

        Returns:
            ``(size, size, 3)`` uint8, RGB.
        """
        image = image.convert("RGB")
        width, height, left, top = self._geometry(*image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        return np.array(image.crop((left, top, left + self.size, top + self.size)))

    def _geometry(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Width and height that an image is resized to, and the left upper corner of what is cut out."""
        short, long = sorted((width, height))
        scaled = (self.resize, int(self.resize * long / short))
        width, height = scaled if width <= height else scaled[::-1]
        half = round if self.round_crop else int
        return width, height, half((width - self.size) / 2), half((height - self.size) / 2)

    def normalise(self, batch: Tensor) -> Tensor:
        """Turn ``(B, H, W, 3)`` uint8 into ``(B, 3, H, W)`` float32, ``(x / 255 - mean) / std``, on its device."""
        mean, std = _channels(self.mean, batch.device), _channels(self.std, batch.device)
        return batch.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


@functools.lru_cache(maxsize=64)
def _channels(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """One number a channel, ``(3, 1, 1)``; kept, because bringing it to a GPU makes the host wait."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(3, 1, 1)


@dataclass(frozen=True)
class WeightsInfo:
    """Where weights come from.

    Attributes:
        name: what they are called.
        origin: file, folder, package or address.
        sha256: what `file_sha256` says of the file or files; None for weights that no file holds.
        licence: SPDX name where there is one, else ``unknown``.
        random_init: nobody trained these. Every table row that uses them says so.
    """

    name: str
    origin: str
    sha256: str | None
    licence: str
    random_init: bool = False


class Backbone(nn.Module):
    """A network with its preprocessing and a record of its weights.

    A frozen one stays in evaluation mode whatever `train` is told, and its parameters take no gradient.

    Args:
        network: ``(B, 3, H, W)`` normalised images -> ``(B, D)``; a subclass whose network answers otherwise overrides
            `forward`.
        architecture: what fixes the computation, JSON-serialisable.
        feature: what part of the network's answer the vector is, in words.
        feature_dim: D.
        preprocessing: how images become input.
        weights_info: where the weights come from.
        frozen: no training, no BatchNorm update.
    """

    #: Whether it can tell how crops should have been framed.
    reframes: bool = False

    def __init__(
        self,
        network: nn.Module,
        *,
        architecture: dict[str, Any],
        feature: str,
        feature_dim: int,
        preprocessing: Preprocessing,
        weights_info: WeightsInfo,
        frozen: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.architecture = architecture
        self.feature = feature
        self.feature_dim = feature_dim
        self.preprocessing = preprocessing
        self.weights_info = weights_info
        self.frozen = frozen
        self.requires_grad_(not frozen)
        self.train(not frozen)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features ``(B, D)`` of normalised ``images (B, 3, H, W)``, in the dtype of the weights."""
        return self.network(images)

    def encoder(self, device: str | torch.device, dtype: str | None = None) -> Encoder:
        """Return the fastest way from pixels to features on ``device``, for as many batches as there are.

        On a CPU it may be called by several threads at once, and features do not depend on how images are dealt out to
        batches, to the bit. On a GPU they depend on the size of the batch, but not on what else is in it: fill the
        last one up.

        Args:
            device: where the pixels are and the features will be. A backbone that is elsewhere is copied there.
            dtype: of the computation: ``float32``, ``bfloat16`` or ``float16``; None
                for the dtype of the weights.

        Raises:
            UserError: this backbone or this device has no such dtype.
        """
        device = torch.device(device)
        wanted = dtype_of(self) if dtype is None else dtype_named(dtype)
        backbone = moved(self, device, wanted).to(memory_format=torch.channels_last)  # convolutions are faster so

        def encode(pixels: Tensor) -> Tensor:
            return backbone(self.preprocessing.normalise(pixels).to(wanted))

        return Encoder(in_passes(encode, CPU_PASS) if device.type == "cpu" else encode)

    def reframe(self, features: Tensor) -> Tensor:
        """How crops would have to lie to be framed as those that the backbone learnt from; asked where it `reframes`.

        Args:
            features: ``(B, D)`` of the crops.

        Returns:
            ``(B, 4)``: how far the middle has to move to the right and down, in sides of the crop, and the natural
            logarithms of how much width and height have to grow. No row depends on another, to the bit.
        """
        raise NotImplementedError

    def train(self, mode: bool = True) -> "Backbone":
        """Set training mode; a frozen backbone stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def fingerprint(self, dtype: str = "float32") -> dict[str, Any]:
        """Return what determines the features, JSON-serialisable: equal fingerprints, equal features.

        Args:
            dtype: what the features are computed in.
        """
        sha256 = self.weights_info.sha256
        if sha256 is None or not self.frozen:  # no file holds these weights
            sha256 = state_sha256(self.network.state_dict())
        return {
            "architecture": self.architecture,
            "feature": self.feature,
            "weights": sha256,
            "preprocessing": asdict(self.preprocessing)
            | {"mean": [*self.preprocessing.mean], "std": [*self.preprocessing.std]},
            "dtype": dtype,
        }


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a state dict: of every tensor its name, dtype, shape and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_state(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Compare the tensors of a checkpoint with those that a model has, name by name and shape by shape.

    Args:
        found: name -> shape in the checkpoint.
        wanted: name -> shape in the model.
        where: the file or folder, for the message.

    Raises:
        UserError: one is missing, unknown, or of another shape; names the first.
    """
    for problem, names in (("lacks", wanted.keys() - found.keys()), ("has an unknown", found.keys() - wanted.keys())):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{where} {problem} tensor '{min(names)}'{more}; it is not a checkpoint of this model")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise UserError(f"{where}: tensor '{name}' has shape {found[name]}, the model's is {shape}")
