"""Weights files: safetensors with the configuration of the model in the metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from backbones.base import check_state
from backbones.checkpoints import at_most, check_finite
from backbones.checksums import file_sha256
from backbones.int8 import from_int8
from heads.base import Head
from registry import HEADS, UserError
from zoo.files.atomic import replacing

FOLDER = Path(__file__).resolve().parent / "weights"  # weights that ship with the project
METADATA_KEY = "lamzoo"
LONGEST_WINDOW = 1001  # frames; the published models use 7


def write_weights(path: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Write tensors and metadata atomically.

    Args:
        path: a ``.safetensors`` file. Its folder is created if missing.
        state: tensors by name.
        about: JSON-serialisable metadata.

    Returns:
        The file's sha256. Equal tensors and metadata give equal bytes.

    Raises:
        UserError: the file cannot be written.
    """
    # A single metadata key: safetensors writes several in random order, so the bytes would differ between runs.
    metadata = {METADATA_KEY: json.dumps(about, sort_keys=True)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors, metadata))
    return file_sha256(path)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file written by `write_weights`.

    Returns:
        Tensors by name, those that `to_int8` rounded in float32; and the metadata, empty for any other safetensors
        file.

    Raises:
        UserError: the file does not exist, is damaged, or has values that are not finite.
    """
    if not path.is_file():
        raise UserError(f"weights {path} do not exist")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            if not isinstance(about, dict):
                raise ValueError(f"its metadata is not a JSON object: {about!r:.50}")
        # Not `get_tensor`: in safetensors 0.8 each call leaks a number.
        state = from_int8(safetensors.torch.load(path.read_bytes()))
    except OSError as error:
        raise UserError(f"cannot read weights {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise UserError(f"weights {path} are damaged or not a safetensors file: {error}") from error
    check_finite(state, str(path))
    return state, about


def write_head(path: Path, head: Head, config: Mapping[str, Any], **about: Any) -> str:
    """Write a head's weights and configuration.

    Args:
        path: a ``.safetensors`` file.
        head: trained.
        config: ``dict(type=NAME, **arguments)``. feature_dim and window are added.
        **about: more metadata, such as the backbone's fingerprint.

    Returns:
        The file's sha256.
    """
    config = {**config, "feature_dim": head.feature_dim, "window": head.window}
    return write_weights(path, head.state_dict(), {**about, "head": config})


def read_head(path: Path) -> tuple[Head, dict[str, Any]]:
    """Read a head written by `write_head`.

    Returns:
        The head in evaluation mode, and the file's metadata.

    Raises:
        UserError: the file is damaged or has no head, the head's plug-in is not loaded, or tensors do not fit.
    """
    state, about = read_weights(path)
    if "head" not in about:
        raise UserError(f"weights {path} are not those of a head (no 'head' in the metadata); use a file lamzoo wrote")
    head = build_head(about["head"], state, str(path))
    head.load_state_dict(state)
    return head.eval(), about


def build_head(config: Any, state: Mapping[str, Tensor], where: str, prefix: str = "") -> Head:
    """Build the head that a file describes, without loading its tensors.

    The head is built on the meta device first: the sizes in an untrusted file could ask for any amount of memory.

    Args:
        config: ``dict(type=NAME, **arguments)``.
        state: the file's tensors.
        where: the file, for messages.
        prefix: prefix of the head's tensor names.

    Raises:
        UserError: the head is unknown, or the tensors do not fit it.
    """
    found = {name: tensor for name, tensor in state.items() if name.startswith(prefix)}
    try:
        with at_most(len(found), sum(tensor.numel() for tensor in state.values()), "it"), torch.device("meta"):
            empty: Head = HEADS.build(config)
        if empty.window > LONGEST_WINDOW:
            raise UserError(f"its window has {empty.window} frames; the maximum is {LONGEST_WINDOW}")
    except UserError as error:
        raise UserError(f"weights {where}: {error}") from error
    check_state(found, {prefix + name: tensor for name, tensor in empty.state_dict().items()}, where)
    return HEADS.build(config)
