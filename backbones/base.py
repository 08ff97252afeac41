"""The contract of backbones: images in, one vector per image out, with preprocessing, weights and fingerprint."""

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta
from PIL import Image
from torch import Tensor, nn

from backbones.encoding import Encoder, dtype_named, dtype_of, in_passes, moved
from registry import UserError

Seed = Annotated[int, Meta(ge=0, lt=1 << 32)]  # of random weights; numpy's range

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_SIDE = 8192  # pixels; the size may come from an untrusted file
CPU_PASS = 4  # images of 224 pixels: with more the cache overflows, with fewer the cores idle


@dataclass(frozen=True)
class Preprocessing:
    """Turns an image into network input. Weights only work with their own preprocessing, so the backbone owns it.

    Attributes:
        size: side of the square network input, in pixels.
        resize: length to which the shorter edge is resized before the crop, at least ``size``.
        interpolation: PIL filter: ``bicubic``, ``bilinear`` or ``nearest``.
        mean: per channel, for values in [0, 1].
        std: per channel.
        round_crop: round half an odd crop margin to even like torchvision and timm, not down like transformers. The
            crop moves by one pixel, which changes the features.
        stretch: resize both edges to ``resize``, whatever the image's shape.
        pad: shrink the image until it fits, never enlarge it, and put it in the middle of a black square, so that a
            pixel is a pixel of the source and no part is cut off. ``resize`` and ``stretch`` have no effect then.
    """

    size: int
    resize: int
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    round_crop: bool = False
    stretch: bool = False
    pad: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize <= MAX_SIDE:
            raise UserError(
                f"cannot resize images to {self.resize} and crop them to {self.size} pixels; sizes must satisfy "
                f"1 <= size <= resize <= {MAX_SIDE}"
            )
        for name, values, low in (("mean", self.mean, -math.inf), ("std", self.std, 0.0)):
            if len(values) != 3 or not all(low < float(value) < math.inf for value in values):
                above = ", above 0" if low == 0 else ""
                raise UserError(f"{name} of the preprocessing is {values!r}; it must be three finite numbers{above}")

    def resize_crop(self, image: Image.Image) -> np.ndarray:
        """Resize the shorter edge with PIL and crop the centre, like transformers' CLIP processor, or pad.

        Returns:
            ``(size, size, 3)`` uint8, RGB.
        """
        image = image.convert("RGB")
        if self.pad:
            return self._padded(image)
        width, height, left, top = self._geometry(*image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        return np.array(image.crop((left, top, left + self.size, top + self.size)))

    def _padded(self, image: Image.Image) -> np.ndarray:
        """Return the image, shrunk if it does not fit, in the middle of a black square."""
        factor = min(1.0, self.size / max(image.size))
        width, height = (max(1, round(side * factor)) for side in image.size)
        if factor < 1:
            image = image.resize((width, height), Image.Resampling[self.interpolation.upper()])
        out = np.zeros((self.size, self.size, 3), dtype=np.uint8)
        left, top = (self.size - width) // 2, (self.size - height) // 2
        out[top : top + height, left : left + width] = np.asarray(image)
        return out

    def _geometry(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the resized width and height, and left and top of the crop."""
        short, long = sorted((width, height))
        scaled = (self.resize, self.resize if self.stretch else int(self.resize * long / short))
        width, height = scaled if width <= height else scaled[::-1]
        half = round if self.round_crop else int
        return width, height, half((width - self.size) / 2), half((height - self.size) / 2)

    def normalise(self, batch: Tensor) -> Tensor:
        """Return ``(x / 255 - mean) / std``: ``(B, H, W, 3)`` uint8 -> ``(B, 3, H, W)`` float32, on the same device."""
        mean, std = _channels(self.mean, batch.device), _channels(self.std, batch.device)
        return batch.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


@functools.lru_cache(maxsize=64)
def _channels(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """Return one number per channel, ``(3, 1, 1)``. Cached, because a copy to a GPU blocks the host."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(3, 1, 1)


@dataclass(frozen=True)
class WeightsInfo:
    """Origin and licence of a backbone's weights.

    Attributes:
        name: name in tables and records.
        origin: file, folder, package or URL.
        sha256: `file_sha256` of the file or files; None if the weights are not those of a file.
        licence: SPDX identifier, or ``unknown``.
        random_init: untrained weights; table rows that use them say so.
    """

    name: str
    origin: str
    sha256: str | None
    licence: str
    random_init: bool = False


class Backbone(nn.Module):
    """Base class of backbones: a network with its preprocessing and the origin of its weights.

    A frozen backbone stays in evaluation mode even after ``train()``, and its parameters get no gradients.

    Attributes:
        reframes: whether the backbone implements `reframe`.

    Args:
        network: normalised images ``(B, 3, H, W)`` -> features ``(B, D)``. For networks with another output, override
            `forward`.
        architecture: everything but the weights that determines the computation, JSON-serialisable.
        feature: description of the vector, such as ``CLS token of the last layer``; part of the fingerprint.
        feature_dim: D.
        preprocessing: size, resize and normalisation of the network's input.
        weights_info: origin and licence of the weights.
        frozen: exclude the network from training, batch normalisation statistics included.

    Example:
        >>> backbone = Backbone(
        ...     nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ...     architecture={"name": "mean_colour"},
        ...     feature="mean of each channel",
        ...     feature_dim=3,
        ...     preprocessing=Preprocessing(size=8, resize=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        ...     weights_info=WeightsInfo("mean_colour", "none", None, "Apache-2.0"),
        ... )
        >>> red = Image.new("RGB", (120, 80), (255, 0, 0))
        >>> pixels = torch.from_numpy(backbone.preprocessing.resize_crop(red))[None]  # (B, H, W, 3) = (1, 8, 8, 3)
        >>> backbone.encoder("cpu")(pixels).tolist()
        [[1.0, -1.0, -1.0]]
    """

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
        """Return the fastest function from pixels to features on ``device``.

        On a CPU, several threads may call it, and an image has the same features in any batch, to the bit. On a GPU,
        features depend on the size of the batch but not on the other images in it: pad the last batch.

        Args:
            device: device of pixels and features. If the backbone is on another one, a copy of it is used.
            dtype: dtype of the computation: ``float32``, ``bfloat16`` or ``float16``; None for that of the weights.

        Raises:
            UserError: the dtype is none of these.
        """
        device = torch.device(device)
        wanted = dtype_of(self) if dtype is None else dtype_named(dtype)
        backbone = moved(self, device, wanted).to(memory_format=torch.channels_last)  # convolutions are faster so

        def encode(pixels: Tensor) -> Tensor:
            return backbone(self.preprocessing.normalise(pixels).to(wanted))

        return Encoder(in_passes(encode, CPU_PASS) if device.type == "cpu" else encode)

    def reframe(self, features: Tensor) -> Tensor:
        """Return how to move and scale crops so that they are framed like the training crops; needs `reframes`.

        Args:
            features: ``(B, D)`` of the crops.

        Returns:
            ``(B, 4)``: shift of the centre right and down, in sides of the crop, and natural logarithms of the factors
            for width and height. Rows do not depend on each other, to the bit.
        """
        raise NotImplementedError

    def train(self, mode: bool = True) -> "Backbone":
        """Set training mode; a frozen backbone stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def fingerprint(self, dtype: str = "float32") -> dict[str, Any]:
        """Return what determines the features, JSON-serialisable: equal fingerprints mean equal features.

        Args:
            dtype: dtype of the computation.
        """
        sha256 = self.weights_info.sha256
        if sha256 is None or not self.frozen:  # the weights are those of no file, or may change
            sha256 = state_sha256(self.network.state_dict())
        preprocessing = asdict(self.preprocessing)
        for name in ("stretch", "pad"):  # the fingerprints from before there was the choice stay what they are
            if not preprocessing[name]:
                del preprocessing[name]
        return {
            "architecture": self.architecture,
            "feature": self.feature,
            "weights": sha256,
            "preprocessing": preprocessing | {"mean": [*self.preprocessing.mean], "std": [*self.preprocessing.std]},
            "dtype": dtype,
        }


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a state dict: name, dtype, shape and bytes of each tensor, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_state(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Compare a checkpoint's tensors with a model's, by name and shape.

    Args:
        found: state dict of the checkpoint.
        wanted: state dict of the model, possibly on the meta device.
        where: file or folder, for the message.

    Raises:
        UserError: a tensor is missing, unknown, or of another shape; names the first.
    """
    for problem, names in (("lacks", wanted.keys() - found.keys()), ("has an unknown", found.keys() - wanted.keys())):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{where} {problem} tensor '{min(names)}'{more}; it is not a checkpoint of this model")
    for name, tensor in wanted.items():
        shape = tuple(found[name].shape)
        if shape != tuple(tensor.shape):
            raise UserError(f"{where}: tensor '{name}' has shape {shape}, the model's is {tuple(tensor.shape)}")
