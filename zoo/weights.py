"""Read and write weights: safetensors files whose metadata says what they are the weights of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from backbones.base import check_state
from backbones.checkpoints import at_most
from backbones.checksums import file_sha256
from heads.base import Head
from registry import HEADS, UserError
from zoo.files.atomic import replacing

FOLDER = Path(__file__).resolve().parent / "weights"  # what ships with the project
METADATA_KEY = "lamzoo"
LONGEST_WINDOW = 1001  # frames; the published models have 7


def write_weights(path: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Write tensors and what they belong to, atomically: whoever reads ``path`` finds the old file or the new one.

    Args:
        path: a ``.safetensors`` file; its folder is made where it is missing.
        state: tensors by name.
        about: JSON-serialisable.

    Returns:
        The file's sha256; equal tensors and words give equal bytes.

    Raises:
        UserError: it cannot be written there.
    """
    # One metadata key: safetensors writes several in no fixed order, and the bytes would differ from run to run.
    metadata = {METADATA_KEY: json.dumps(about, sort_keys=True)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors, metadata))
    return file_sha256(path)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_weights` wrote; of another safetensors file the words are empty.

    Returns:
        Tensors by name, and what was said about them.

    Raises:
        UserError: the file does not exist or is damaged.
    """
    if not path.is_file():
        raise UserError(f"weights {path} do not exist")
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            if not isinstance(about, dict):
                raise ValueError(f"what it says about itself is no JSON object but {about!r:.50}")
        return safetensors.torch.load(path.read_bytes()), about  # each `get_tensor` of 0.8 leaves a number behind
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"weights {path} are damaged or no safetensors file: {error}") from error


def write_head(path: Path, head: Head, config: Mapping[str, Any], **about: Any) -> str:
    """Write a head's weights with the configuration that builds it.

    Args:
        path: a ``.safetensors`` file.
        head: trained.
        config: ``dict(type=NAME, **arguments)``; feature_dim and window are added.
        **about: what else to remember, such as the backbone's fingerprint.

    Returns:
        The file's sha256.
    """
    config = {**config, "feature_dim": head.feature_dim, "window": head.window}
    return write_weights(path, head.state_dict(), {**about, "head": config})


def read_head(path: Path) -> tuple[Head, dict[str, Any]]:
    """Build the head that `write_head` wrote, in evaluation mode, by its registered name.

    Returns:
        The head, and everything that was said about it.

    Raises:
        UserError: a damaged file, one without a head, a head whose plug-in is not loaded, or tensors that do not fit.
    """
    state, about = read_weights(path)
    if "head" not in about:
        raise UserError(f"weights {path} are not those of a head; lamzoo writes what they belong to into the file")
    head = build_head(about["head"], state, str(path))
    head.load_state_dict(state)
    return head.eval(), about


def build_head(config: Any, state: Mapping[str, Tensor], where: str, prefix: str = "") -> Head:
    """Build the head that a file describes; first without memory, since its sizes are whatever somebody wrote there.

    Args:
        config: ``dict(type=NAME, **arguments)``.
        state: the file's tensors.
        where: the file, for messages.
        prefix: of the names of the head's own tensors.

    Raises:
        UserError: there is no such head, or the tensors do not fit it.
    """
    found = {name: tuple(tensor.shape) for name, tensor in state.items() if name.startswith(prefix)}
    try:
        with at_most(len(found), sum(tensor.numel() for tensor in state.values()), "it"), torch.device("meta"):
            empty: Head = HEADS.build(config)
        if empty.window > LONGEST_WINDOW:
            raise UserError(f"its window has {empty.window} frames; it has to be {LONGEST_WINDOW} at most")
    except UserError as error:
        raise UserError(f"weights {where}: {error}") from error
    check_state(found, {prefix + name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}, where)
    return HEADS.build(config)
