"""Vision transformers of Hugging Face's transformers: DINOv2, SigLIP, CLIP, ViT, the vision tower of InternVL.

A snapshot is a folder as on the hub: ``config.json``, ``preprocessor_config.json`` and safetensors files. Python files
in it are never executed. Of a model for images and text, the vision tower alone is built and read.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from backbones.base import Backbone, Preprocessing, WeightsInfo
from backbones.checkpoints import SPARE_NUMBERS, at_most, check_finite
from backbones.checksums import file_sha256
from backbones.clip_processor import preprocessing_of
from backbones.hub import download_snapshot, is_hub_id
from backbones.opening import read_small_json
from backbones.snapshots import names_in_files, read_tensors, weight_files
from registry import BACKBONES, UserError, first_sentences

Pooling = Literal["pooled", "cls"]
FEATURES = {"pooled": "pooled output of the network", "cls": "CLS token of the last layer"}

FILES = (
    *("config.json", "preprocessor_config.json", "processor_config.json"),
    *("model.safetensors.index.json", "*.safetensors"),
)
_TOWER = re.compile(r"(model\.)?(vision_tower|vision_model)\.")
_WRAPPER = re.compile(r"^(model\.)?vision_tower\.")  # around a tower whose own names do not have it
_GREYS = 8  # levels of 255; on noise, torchvision's bicubic differs from PIL's by 6, and a shift by a pixel by 200


@BACKBONES.register_module(name="hf")
class HuggingFace(Backbone):
    """``hf:DIR`` or ``hf:OWNER/NAME``: a vision transformer of transformers, or the vision tower of a larger model.

    ``pooled`` is transformers' ``pooler_output``: DINOv2 and CLIP normalise the CLS token, SigLIP pools all tokens with
    attention, ViT has a layer of its own. ``cls`` is the CLS token as it leaves the network, before any pooling; SigLIP
    has none. Weights are computed in float32.

    Args:
        model: the folder, or ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` on the hub.
        pooling: the feature, ``pooled`` or ``cls``; None: ``pooled`` if the snapshot has trained weights for it.
        frozen: exclude the network from training.

    Raises:
        UserError: the folder is incomplete or damaged, holds no vision transformer that transformers itself contains,
            or its images are prepared in a way that `Preprocessing` cannot repeat.
    """

    def __init__(self, model: str, pooling: Pooling | None = None, frozen: bool = True) -> None:
        import transformers  # seconds of import

        if is_hub_id(model):
            folder, name, commit = download_snapshot(model, FILES)
            origin = f"hub:{name}@{commit}"
        else:
            folder, name, origin = Path(model), Path(model).resolve().name, model
        with _quiet(transformers):
            config = _tower_config(transformers, folder)
            preprocessing = _preprocessing(transformers, folder)
            files, state = _tower_state(folder)
            plan = _planned(transformers, config, state, f"{folder}")
            network, untrained = _filled(plan, config, state, f"{folder}")
        self.pooling: Pooling = _pooling(pooling, plan, preprocessing.size, untrained, f"hf:{model}")
        if self.pooling == "cls" and isinstance(getattr(network, "pooler", None), nn.Module):
            network.pooler = None  # nothing of it is in the feature
        super().__init__(
            network,
            architecture={
                "name": f"hf:{type(network).__name__}",
                "transformers": transformers.__version__,
                "config": _config_sha256(config),
            },
            feature=FEATURES[self.pooling],
            feature_dim=network.config.hidden_size,
            preprocessing=preprocessing,
            weights_info=WeightsInfo(name, origin, file_sha256(*files), "unknown"),
            frozen=frozen,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the features ``(B, D)`` of normalised ``images (B, 3, H, W)``."""
        output = self.network(pixel_values=images)
        return output.pooler_output if self.pooling == "pooled" else output.last_hidden_state[:, 0]


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silence transformers' reports of tensors that do not belong to the tower, and its progress bars."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


# -- the network --------------------------------------------------------------------------------------------------


def _tower_config(transformers: Any, folder: Path) -> Any:
    """Return transformers' configuration of the vision tower of a snapshot."""
    path = folder / "config.json"
    if not path.is_file():
        problem = "has no config.json" if folder.is_dir() else "does not exist"
        raise UserError(f"folder {folder} {problem}; it must hold a snapshot in transformers' format")
    try:
        named = read_small_json(path).get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not the configuration of a model: {error}") from error
    if not isinstance(named, str) or named not in transformers.CONFIG_MAPPING:
        raise UserError(
            f"{path} names a model '{named}', which transformers {transformers.__version__} does not contain; code "
            "that comes with a model is never run. Use a repository in transformers' own format"
        )
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises almost anything on a damaged configuration
        raise UserError(f"{path} cannot be read: {first_sentences(error)}") from error
    return getattr(config, "vision_config", config)


def _config_sha256(config: Any) -> str:
    """Hash what the configuration of a tower says, without the versions and names that change no number."""
    values = json.loads(config.to_json_string(use_diff=False))
    for key in ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"):
        values.pop(key, None)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _tower_state(folder: Path) -> tuple[list[Path], dict[str, Tensor]]:
    """Read the tower's tensors; returns the files of the snapshot and the tensors under the tower's own names."""
    single = folder / "model.safetensors"
    has_index = (folder / "model.safetensors.index.json").is_file()
    files = [single] if single.is_file() and not has_index else weight_files(folder)
    part_of_more = any(_TOWER.match(name) for name in names_in_files(files))
    state = read_tensors(files, lambda name: not part_of_more or bool(_TOWER.match(name)))
    check_finite(state, str(folder))
    return files, {_WRAPPER.sub("", name): tensor for name, tensor in state.items()}


def _planned(transformers: Any, config: Any, state: Mapping[str, Tensor], where: str) -> nn.Module:
    """Build the tower without memory for its weights, and compare its size with that of the weights."""
    try:
        with at_most(len(state), 0, where), torch.device("meta"):
            network: nn.Module = transformers.AutoModel.from_config(config, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:  # as above
        raise UserError(f"{where}: no network can be built from its config.json: {first_sentences(error)}") from error
    needed, there = (sum(each.numel() for each in tensors.values()) for tensors in (network.state_dict(), state))
    if needed > 2 * there + SPARE_NUMBERS:
        raise UserError(f"{where} describes a network of {needed:,} numbers, and its files have {there:,}")
    return network.eval()


def _filled(plan: nn.Module, config: Any, state: Mapping[str, Tensor], where: str) -> tuple[Any, set[str]]:
    """Build the tower with its weights, in float32.

    Returns:
        The network, and the names of tensors of its pooler that the snapshot lacks.
    """
    with torch.random.fork_rng(devices=[]):  # what the snapshot lacks is drawn first
        torch.manual_seed(0)
        try:
            network, report = type(plan).from_pretrained(  # type: ignore[attr-defined]
                None, config=config, state_dict=dict(state), output_loading_info=True, dtype=torch.float32
            )
        except Exception as error:  # as above
            raise UserError(f"{where} cannot be read: {first_sentences(error)}") from error
    kind = type(plan).__name__
    if wrong := [*report["mismatched_keys"], *report.get("error_msgs", ())]:
        raise UserError(f"{where}: the shape of tensor '{wrong[0]}' is not that of a {kind}")
    missing = set(report["missing_keys"])
    lacks = {name for name in missing if not name.startswith("pooler.")}
    if lacks:
        more = f" and {len(lacks) - 1} more" if len(lacks) > 1 else ""
        raise UserError(f"{where} lacks tensor '{min(lacks)}'{more}; it is not a checkpoint of {kind}")
    return network, missing


def _pooling(asked: Pooling | None, plan: nn.Module, size: int, untrained: set[str], where: str) -> Pooling:
    """Choose the feature, after a dry run that also shows whether the network takes pictures of this size."""
    try:
        with torch.no_grad():
            output = plan(pixel_values=torch.empty(1, 3, size, size, device="meta"))
        tokens, pooled = output.last_hidden_state.shape, getattr(output, "pooler_output", None)
        side: Any = plan.config.patch_size  # type: ignore[union-attr]
    except Exception as error:  # of any network
        raise UserError(
            f"{where} is no vision transformer for images of {size} pixels: {first_sentences(error)}"
        ) from error
    patches = (size // (side if isinstance(side, int) else side[0])) ** 2
    if len(tokens) != 3:
        raise UserError(f"{where} gives features of shape {tuple(tokens)}; only vision transformers are supported")
    has = {"pooled": pooled is not None and pooled.ndim == 2 and not untrained, "cls": tokens[1] > patches}
    chosen: Pooling = asked or ("pooled" if has["pooled"] else "cls")
    if not has[chosen]:
        other = next((f"; use pooling={name}" for name, there in has.items() if there), "")
        why = f"its snapshot lacks '{min(untrained)}'" if untrained and chosen == "pooled" else "the network has none"
        raise UserError(f"{where} has no feature '{chosen}': {why}{other}")
    return chosen


# -- the preprocessing --------------------------------------------------------------------------------------------


def image_processor(folder: Path) -> Any:
    """Return transformers' image processor of a snapshot, the one that resizes with PIL where there are two.

    Raises:
        UserError: there is none, or it needs code that comes with the snapshot.
    """
    import transformers  # as above

    by_pil = {"backend": "pil"} if int(transformers.__version__.split(".")[0]) >= 5 else {"use_fast": False}
    try:
        return transformers.AutoImageProcessor.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **by_pil
        )
    except Exception as error:  # as above
        path = folder / "preprocessor_config.json"
        reason = first_sentences(error) if path.exists() else "it does not exist"
        raise UserError(f"{path} gives no image processor: {reason}") from error


def _preprocessing(transformers: Any, folder: Path) -> Preprocessing:
    """Convert the image processor of a snapshot, and compare the pixels of both on pictures of three shapes."""
    processor = image_processor(folder)
    where = f"{folder / 'preprocessor_config.json'}: {type(processor).__name__}"
    values = processor.to_dict()
    values["do_center_crop"] = bool(values.get("do_center_crop"))
    values["do_pad"] = bool(values.get("do_pad"))
    try:
        found = preprocessing_of(values, _side(values))
        differs = max(_difference(found, processor, picture) for picture in _pictures(found.size))
    except Exception as error:  # as above
        raise UserError(f"{where} cannot be repeated: {first_sentences(error)}") from error
    if differs > _GREYS:
        raise UserError(
            f"{where} prepares images in a way that cannot be repeated here: pixels differ by {differs:.0f} of 255"
        )
    return found


def _side(values: Mapping[str, Any]) -> int:
    """Side of the pictures that an image processor makes."""
    size = values["crop_size"] if values["do_center_crop"] else values["size"]
    return int(size if isinstance(size, int) else min(each for each in size.values() if each is not None))


def _pictures(side: int) -> Iterator[Image.Image]:
    """Noise, where a shift of one pixel is large: a square, and oblong both ways."""
    draw = np.random.default_rng(0)
    for height, width in ((side, side), (side + 29, 2 * side + 1), (2 * side, side + 10)):
        yield Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _difference(preprocessing: Preprocessing, processor: Any, picture: Image.Image) -> float:
    """The largest difference between the pixels of both, in levels of 255."""
    wanted = processor(picture, return_tensors="pt")["pixel_values"].float()
    found = preprocessing.normalise(torch.from_numpy(preprocessing.resize_crop(picture))[None])
    if found.shape != wanted.shape:
        raise ValueError(f"it makes arrays of shape {tuple(wanted.shape)}, not {tuple(found.shape)}")
    return float((found - wanted).abs().mul(torch.tensor(preprocessing.std).view(3, 1, 1)).max()) * 255
