"""Find, verify, read and write weights: safetensors files whose metadata says what they are the weights of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from backbones.base import check_state, file_sha256
from heads.base import Head
from registry import HEADS, UserError
from zoo.files import replacing

FOLDER = Path(__file__).resolve().parent / "weights"  # what ships with the project
METADATA_KEY = "lamzoo"


def find_weights(name: str | Path, sha256: str | None = None) -> Path:
    """Return the file called ``name``: a path, or one below the folder of shipped weights.

    Args:
        name: path, absolute or relative to the working directory or to ``zoo/weights``.
        sha256: what its bytes must hash to.

    Raises:
        UserError: there is none, or it has another hash.
    """
    for path in (Path(name), FOLDER / name):
        if path.is_file():
            break
    else:
        raise UserError(f"weights {name} are neither a file nor among the shipped ones in {FOLDER}")
    if sha256 is not None and (found := file_sha256(path)) != sha256:
        raise UserError(f"weights {path} have sha256 {found}, not {sha256}: damaged, or another version")
    return path


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
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
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
    try:
        head: Head = HEADS.build(about["head"])
    except UserError as error:
        raise UserError(f"weights {path}: {error}") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    check_state({name: tuple(tensor.shape) for name, tensor in state.items()}, wanted, str(path))
    head.load_state_dict(state)
    return head.eval(), about
