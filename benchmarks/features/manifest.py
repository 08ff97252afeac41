"""The manifest of a feature store, `manifest.json`: its fingerprint, and numbers of shards and images."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backbones.opening import read_small_json
from benchmarks.features.shard_files import other_fingerprint
from registry import UserError

NAME = "manifest.json"
FORMAT = 2


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        fingerprint: of the backbone.
        feature_dim: width of the features.
        views: view -> its numbers of `shards` and `images`.
        damaged: images that could not be decoded, sorted.
    """

    fingerprint: dict[str, Any]
    feature_dim: int
    views: dict[str, dict[str, int]]
    damaged: list[str]

    def text(self) -> str:
        """The manifest as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, allow_nan=False) + "\n"


def read_manifest(folder: Path, fingerprint: dict[str, Any]) -> Manifest | None:
    """Read the manifest of a store; None if there is none.

    Args:
        folder: of the store.
        fingerprint: the expected one.

    Raises:
        UserError: the manifest cannot be read, or is of another format or fingerprint.
    """
    path = folder / NAME
    try:
        read = read_small_json(path)
        found = read["format"]
        if found == FORMAT:
            manifest = Manifest(
                read["fingerprint"], int(read["feature_dim"]), read.get("views", {}), list(read["damaged"])
            )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path} is not the manifest of a feature store ({error}); delete {folder} and extract again"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if found != FORMAT:
        raise UserError(f"{folder} is a feature store of format {found}, not {FORMAT}; delete it and extract again")
    if manifest.fingerprint != fingerprint:
        raise other_fingerprint(folder)
    return manifest
