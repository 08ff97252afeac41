"""Model folders and checkpoints, made here or by strangers."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import save

from tests.conftest import TINY
from tests.fuzz.harness import Kind, command
from tests.fuzz.made import lay, once
from tests.fuzz.values import file_of, place, spoilt_bytes, spoilt_json

HEAD = {"type": "gru", "projection": 4, "hidden": 4, "mlp": [4], "feature_dim": 48, "window": 7}


@functools.cache
def warm() -> None:
    """Do the slow imports and builds of the readers once, so that no case is charged for them."""
    import zoo.models  # noqa: F401
    from registry import BACKBONES
    from zoo.published import PUBLISHED, tensor_names

    BACKBONES.build({"type": "timm:resnet10t", "pretrained": False})
    for kind in PUBLISHED:
        tensor_names(kind)
    model_files()


@once
def model_files(folder: Path) -> None:
    from registry import load_plugin
    from tests.zoo.test_models import write

    load_plugin(TINY)
    write(folder, {"type": "tiny_means"})


@st.composite
def model_folder(draw: st.DrawFn) -> dict[str, Any]:
    """A model folder with one spoilt file; spoilt weights match the checksum in the card."""
    files: dict[str, Any] = dict(model_files())
    which = draw(st.sampled_from(["config.json", "card.json", "model.safetensors", "about", "file"]))
    if which.endswith(".json"):
        files[which] = draw(spoilt_json(json.loads(files[which])))
    elif which == "file":
        name = draw(st.sampled_from(["config.json", "card.json", "model.safetensors"]))
        files[name] = draw(file_of(st.just(files[name])))
    else:
        whole = files["model.safetensors"]
        files["model.safetensors"] = draw(spoilt_bytes(whole) if which == "model.safetensors" else about(whole))
        sums = json.loads(files["card.json"])
        sums["weights"][0]["sha256"] = hashlib.sha256(files["model.safetensors"]).hexdigest()
        files["card.json"] = json.dumps(sums).encode()
    return files


@st.composite
def about(draw: st.DrawFn, whole: bytes) -> bytes:
    """The same tensors with a spoilt description of backbone and head."""
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    words = draw(spoilt_json(json.loads(header["__metadata__"]["lamzoo"])))
    header["__metadata__"]["lamzoo"] = words.decode("utf-8", "replace")
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + length :]


def write_folder(folder: Path, case: dict[str, Any]) -> None:
    warm()
    lay(folder / "mine", case)


def write_checkpoint(folder: Path, case: Any) -> None:
    warm()
    place(folder / "x.pth", case)


def open_folder(folder: Path, case: object) -> None:
    from zoo.models import open_model

    open_model(str(folder / "mine"))


def copy_folder(folder: Path, case: object) -> None:
    command("export", str(folder / "mine"), "-o", folder / "out")


# -- checkpoints --------------------------------------------------------------------------------------------------


@functools.cache
def checkpoint(legacy: bool) -> bytes:
    torch.manual_seed(0)
    content = {"state_dict": {"fc1.weight": torch.rand(4, 6), "fc1.bias": torch.rand(4)}, "epoch": 3, "mAP": 0.5}
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@functools.cache
def safetensors_file() -> bytes:
    torch.manual_seed(0)
    return save({"fc1.weight": torch.rand(4, 6), "fc1.bias": torch.rand(4)}, {"lamzoo": json.dumps({"head": HEAD})})


checkpoints = st.one_of(
    spoilt_bytes(checkpoint(False)),
    spoilt_bytes(checkpoint(True)),
    spoilt_bytes(safetensors_file()),
    file_of(st.binary(max_size=400)),
)


def import_it(folder: Path, case: object) -> None:
    command("import", folder / "x.pth", "--as", "internlstm", "-o", folder / "y.safetensors")


def weights_of_a_backbone(folder: Path, case: object) -> None:
    from registry import BACKBONES

    BACKBONES.build({"type": "timm:resnet10t", "weights": str(folder / "x.pth")})


def read_a_head(folder: Path, case: object) -> None:
    from zoo.weights import read_head

    read_head(folder / "x.pth")


KINDS = (
    Kind("model folder, opened", model_folder(), write_folder, open_folder),
    Kind("model folder, copied", model_folder(), write_folder, copy_folder),
    Kind("checkpoint, imported", checkpoints, write_checkpoint, import_it),
    Kind("checkpoint of a backbone", checkpoints, write_checkpoint, weights_of_a_backbone),
    Kind("safetensors of a head", checkpoints | about(safetensors_file()), write_checkpoint, read_a_head),
)
