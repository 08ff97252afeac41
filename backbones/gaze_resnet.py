"""The ResNet-18 trunk of Gaze360, GazeLSTM and GazePose: a vector of 256 features, and the 7 x 7 map before it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from backbones.base import Backbone, Preprocessing, Seed, WeightsInfo, check_state
from backbones.checkpoints import check_finite
from backbones.checksums import file_sha256
from backbones.int8 import from_int8
from backbones.timm_models import TimmModel
from registry import BACKBONES, UserError

PREFIX = "backbone.network."  # of the trunk's tensors in files written by `import`
RENDERS = Path(__file__).resolve().parent.parent / "zoo" / "weights" / "gaze_resnet18_renders" / "model.safetensors"
IMAGENET_MODEL = "resnet18.tv_in1k"


@BACKBONES.register_module(name="gaze_resnet18")
class GazeResNet18(Backbone):
    """ResNet-18, then linear 512 -> 1000, ReLU, 1000 -> 256: the trunk of Gaze360, GazeLSTM and GazePose.

    Without ``weights`` or ``pretrained`` the weights are random, and records say so. Every batch normalisation then has
    weight 1, as in the published programs; timm would set the last one of each residual block to 0.

    Args:
        size: side of the input in pixels; 224 as published. Much smaller crops gain nothing from 224, which costs
            twelve times as much as 64.
        weights: safetensors file written by `import --as gaze360`, `gazelstm` or `gazepose`.
        pretrained: ``imagenet`` for timm's ``resnet18.tv_in1k`` from the hub or its cache; the two linear layers stay
            random. ``renders`` for weights trained on the gaze of rendered heads, in `RENDERS`.
        seed: seed of random weights.
        frozen: exclude the trunk from training.

    Raises:
        UserError: the weights are unavailable, damaged, or those of another model.
    """

    map_channels = 512

    def __init__(
        self,
        size: int = 224,
        weights: str | None = None,
        pretrained: Literal["imagenet", "renders"] | None = None,
        seed: Seed = 0,
        frozen: bool = True,
    ) -> None:
        if size < 32:
            raise UserError(f"backbone gaze_resnet18: size must be at least 32 (one cell of the map), got {size}")
        if weights and pretrained:
            raise UserError(f"backbone gaze_resnet18: weights={weights} and pretrained={pretrained} exclude each other")
        try:
            trunk = TimmModel(IMAGENET_MODEL, pretrained=pretrained == "imagenet", seed=seed)
        except UserError as error:
            reason = str(error).partition(";")[0]
            raise UserError(f"{reason}; give weights=FILE, or leave pretrained out for random weights") from error
        network: Any = trunk.network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network.fc1, network.fc2 = nn.Linear(512, 1000), nn.Linear(1000, 256)
        if weights:
            info = _load(network, Path(weights))
        elif pretrained == "renders":
            if not RENDERS.is_file():
                raise UserError(f"{RENDERS} does not exist; make it with python -m tools.pretrain_gaze_resnet")
            info = replace(_load(network, RENDERS), name=RENDERS.parent.name)
        elif pretrained:
            name = f"{trunk.weights_info.name}, fc1 and fc2 random (seed {seed})"
            # No sha256: the file's would not cover the random layers, so the fingerprint hashes the tensors.
            info = WeightsInfo(name, trunk.weights_info.origin, None, trunk.weights_info.licence)
        else:
            for layer in network.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    nn.init.ones_(layer.weight)
            info = trunk.weights_info
        for block in network.layer4:
            for name in ("conv1", "conv2"):
                if getattr(block, name).stride == (1, 1):
                    setattr(block, name, LastConv(getattr(block, name)))
        super().__init__(
            network,
            architecture={"name": "gaze_resnet18", "timm": trunk.architecture["timm"]},
            feature="fc2, after fc1 and ReLU",
            feature_dim=256,
            preprocessing=Preprocessing(size=size, resize=size, interpolation="bilinear"),
            weights_info=info,
            frozen=frozen,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return vectors ``(B, 256)`` of normalised ``images (B, 3, size, size)``."""
        return self.forward_map(images)[0]

    def forward_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors ``(B, 256)``, and the maps before pooling, ``(B, 512, 7, 7)`` at 224 pixels."""
        network: Any = self.network  # timm's ResNet
        maps = network.forward_features(images)
        return network.fc2(functional.relu(network.fc1(maps.mean((2, 3))))), maps


class LastConv(nn.Conv2d):
    """A 3 x 3 convolution of the last stage, trained on a CPU as a matrix product where the map is at most 2 x 2.

    oneDNN's gradient of such a convolution takes eight times as long as the convolution: half of a training step on
    crops of 48 pixels. Same function, other rounding.

    Args:
        conv: gives sizes and weights.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=1, bias=False, device="meta")  # draws nothing
        self.weight = conv.weight

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve ``maps (B, 512, H, W)``."""
        height, width = maps.shape[-2:]
        if maps.device.type != "cpu" or not torch.is_grad_enabled() or height * width > 4:
            return super().forward(maps)
        patches = functional.unfold(maps, 3, padding=1).transpose(1, 2)  # (B, H W, 4608)
        return (patches @ self.weight.flatten(1).T).transpose(1, 2).unflatten(2, (height, width))


def _load(network: nn.Module, path: Path) -> WeightsInfo:
    """Load the trunk's weights from a file written by `import`."""
    remedy = "write it with python bench.py import CHECKPOINT --as gaze360|gazelstm|gazepose -o FILE.safetensors"
    if not path.is_file():
        raise UserError(f"weights {path} do not exist; {remedy}")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("lamzoo", "{}"))
            names = [name for name in file.keys() if name.startswith(PREFIX)]  # noqa: SIM118 - not a dict
            state = from_int8({name.removeprefix(PREFIX): file.get_tensor(name) for name in names})
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"weights {path} are damaged or not a safetensors file: {error}; {remedy}") from error
    if not state:
        raise UserError(f"weights {path} have no trunk (tensors '{PREFIX}*'); {remedy}")
    check_state(state, network.state_dict(), str(path))
    check_finite(state, str(path))
    network.load_state_dict(state)
    return WeightsInfo(path.name, str(path), file_sha256(path), about.get("licence") or "unknown")
