"""What the project writes itself, and what strangers say it wrote: models, checkpoints, stores, records, recipes."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from safetensors.torch import save

from tests.fuzz.harness import Kind, command
from tests.fuzz.values import IDS, PLAIN, file_of, place, spoilt_bytes, spoilt_json

HOME = Path(__file__).resolve().parents[2]
HEAD = {"type": "gru", "projection": 4, "hidden": 4, "mlp": [4], "feature_dim": 48, "window": 7}


def once(make: Callable[[Path], object]) -> Callable[[], dict[str, bytes]]:
    """The files that a function writes into a folder, by path; made when they are first asked for."""

    @functools.cache
    def files() -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            return {
                str(path.relative_to(folder)): path.read_bytes()
                for path in sorted(Path(folder).rglob("*"))
                if path.is_file()
            }

    return files


def laid(folder: Path, files: dict[str, bytes]) -> None:
    warm()
    for name, content in files.items():
        place(folder / name, content)


@functools.cache
def warm() -> None:
    """Import and build once what the readers do: its time is not theirs."""
    import zoo.models  # noqa: F401
    from registry import BACKBONES
    from zoo.published import PUBLISHED, tensor_names

    BACKBONES.build({"type": "timm:resnet10t", "pretrained": False})
    for kind in PUBLISHED:
        tensor_names(kind)
    model_files()


# -- model folders ------------------------------------------------------------------------------------------------


@once
def model_files(folder: Path) -> None:
    from registry import load_plugin
    from tests.zoo.test_models import write

    load_plugin(HOME / "tests" / "parts" / "tiny.py")
    write(folder, {"type": "tiny_means"})


@st.composite
def model_folder(draw: st.DrawFn) -> dict[str, Any]:
    """Of a model's folder one file or two are spoilt; the card's sum is made to fit where the weights are."""
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
    """The same tensors under other words: what the file says of its backbone and head."""
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    words = draw(spoilt_json(json.loads(header["__metadata__"]["lamzoo"])))
    header["__metadata__"]["lamzoo"] = words.decode("utf-8", "replace")
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + length :]


def checkpoint_file(folder: Path, case: Any) -> None:
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


# -- an interrupted training --------------------------------------------------------------------------------------


@functools.cache
def unfinished() -> dict[str, Any]:
    """The checkpoint of a training that was stopped in its fourth epoch: `tensors` and `numbers`."""
    from benchmarks.training import loop
    from benchmarks.training.checkpoint import CHECKPOINT, read_state
    from tests.benchmarks.training.test_train import run

    loss, calls = loop.cross_entropy, []

    def stop(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return loss(*arguments)

    loop.cross_entropy = stop  # type: ignore[assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            try:
                run(Path(folder))
            except KeyboardInterrupt:
                tensors, numbers = read_state(Path(folder) / "seed1" / CHECKPOINT)
                return {"tensors": tensors, "numbers": dict(numbers)}
    finally:
        loop.cross_entropy = loss
    raise AssertionError("the training was not stopped")


TENSORS = (torch.zeros(0), torch.zeros(1), torch.full((3, 3), torch.nan), torch.zeros(2, dtype=torch.int64))


@st.composite
def spoilt_content(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """Places of a checkpoint, each with what is put there; None removes it."""
    import copy

    root = copy.deepcopy(unfinished())
    changes = []
    for _ in range(draw(st.integers(1, 2))):
        holder, path = root, []
        while isinstance(holder, (dict, list)) and len(holder):
            key = draw(
                st.sampled_from(sorted(holder, key=str) if isinstance(holder, dict) else list(range(len(holder))))
            )
            path.append(key)
            if not isinstance(holder[key], (dict, list)) or not draw(st.integers(0, 3)):
                break
            holder = holder[key]
        value = draw(st.sampled_from([*PLAIN[:20], "import os", *range(len(TENSORS))]))
        changes.append((path, value))
    return changes


def write_unfinished(folder: Path, case: Any) -> None:
    import copy

    from benchmarks.training.checkpoint import CHECKPOINT, write_state

    target = folder / "run" / "seed1" / CHECKPOINT
    if isinstance(case, bytes) or case in ("folder", "fifo", "loop", "dangling", "unreadable", "empty", "socket"):
        place(target, case)
        return
    root = copy.deepcopy(unfinished())
    for path, value in case:
        holder = root
        try:
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = TENSORS[value] if type(value) is int and 0 <= value < len(TENSORS) else value
        except (KeyError, TypeError, IndexError):
            continue
    try:
        write_state(target, root["tensors"], root["numbers"])
    except (AttributeError, KeyError, TypeError, ValueError):  # not what safetensors or JSON can hold
        place(target, b"")


def go_on(folder: Path, case: object) -> None:
    from tests.benchmarks.training.test_train import run

    unfinished()
    run(folder / "run")


@functools.cache
def unfinished_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save(unfinished(), buffer)
    return buffer.getvalue()


# -- stores -------------------------------------------------------------------------------------------------------

FINGERPRINT = {"architecture": "a", "dtype": "float32"}
IMAGES = [f"c{clip}/t/{frame:05d}.jpg" for clip in range(2) for frame in range(3)]


@once
def store_files(folder: Path) -> None:
    from benchmarks.features.store import FeatureStore

    store = FeatureStore(folder, FINGERPRINT)
    store.create(4)
    for shard in ("c0", "c1"):
        rows = {
            image: np.full(4, number, np.float32).view(np.uint8)
            for number, image in enumerate(IMAGES)
            if shard in image
        }
        store.write("original", shard, rows, [], "F32")
    store.finish()
    shard = store.open("c1")
    assert shard is not None
    shard.expect(9)
    shard.add({"flipped": (IMAGES[3:], torch.ones(3, 4))}, {"flipped": ["c1/t/lost.jpg"]})
    shard.close()


@st.composite
def store_folder(draw: st.DrawFn) -> dict[str, Any]:
    files: dict[str, Any] = {name: content for name, content in store_files().items() if not name.startswith("..")}
    name = draw(st.sampled_from([name for name in files if not name.endswith(".lock")]))
    how = draw(st.sampled_from(["bytes", "file", "json"]))
    if how == "json" and name == "manifest.json":
        files[name] = draw(spoilt_json(json.loads(files[name])))
    elif how == "json" and name.endswith(".safetensors"):
        files[name] = draw(shard_that_lies(files[name]))
    elif how == "json":
        files[name] = draw(journal_that_lies(files[name]))
    else:
        files[name] = draw(spoilt_bytes(files[name]) if how == "bytes" else file_of(st.just(files[name])))
    return files


@st.composite
def shard_that_lies(draw: st.DrawFn, whole: bytes) -> bytes:
    """A shard under another header whose checksum is right."""
    import zlib

    length = int.from_bytes(whole[:8], "little")
    text = draw(spoilt_json(json.loads(whole[8 : 8 + length])))
    data = whole[8 + length :]
    try:
        header = json.loads(text)
        header["__metadata__"]["crc32"] = "0" * 8
        from benchmarks.features.shard_files import encode_header

        crc = zlib.crc32(data, zlib.crc32(encode_header(header)))
        header["__metadata__"]["crc32"] = f"{crc:08x}"
        return encode_header(header) + data
    except (ValueError, KeyError, TypeError, RecursionError):
        return len(text).to_bytes(8, "little") + text + data


@st.composite
def journal_that_lies(draw: st.DrawFn, whole: bytes) -> bytes:
    """A journal whose first record says something else, with the right checksum."""
    import zlib

    line, _, rest = whole.partition(b"\n")
    text = draw(spoilt_json(json.loads(line))).replace(b"\n", b" ") + b"\n"
    data = rest[: json.loads(line)["bytes"]]
    return text + data + zlib.crc32(data, zlib.crc32(text)).to_bytes(4, "little")


def use_store(folder: Path, case: object) -> None:
    from benchmarks.features.store import FeatureStore

    store = FeatureStore(folder / "store", FINGERPRINT)
    store.create(4)
    store.read_shard("original", "c0")
    shard = store.open("c1")
    if shard is not None:
        shard.has("flipped", IMAGES[3])
        shard.expect(0)
    store.finish()
    _ = store.damaged, store.seconds
    store.read("original", IMAGES)


# -- records ------------------------------------------------------------------------------------------------------


@functools.cache
def record_of(name: str) -> dict[str, Any]:
    """A committed record, its lists cut short so that each part of it is met."""
    record = json.loads((HOME / "benchmarks" / "records" / "synthlam" / f"{name}.json").read_text())
    for report in record["training"]:
        report["history"] = report["history"][:1]
    for split in record["splits"].values():
        split["without_clip"] = dict(list(split["without_clip"].items())[:2])
    return record


records = st.sampled_from(["probe", "ensemble", "internlstm_flip_tta_smooth"]).flatmap(
    lambda name: file_of(spoilt_json(record_of(name)))
)


def read_records(folder: Path, case: object) -> None:
    """What reads a record alone: the table in all its forms, and `show`."""
    out = folder / "runs"
    command("show", out / "results" / "synthlam" / "row")
    for form in ("github", "csv", "json", "latex", "html"):
        command("table", "--out", out, "--format", form)


def export_record(folder: Path, case: object) -> None:
    command("export", folder / "runs" / "results" / "synthlam" / "row", "-o", folder / "out")


# -- recipes and settings -----------------------------------------------------------------------------------------

KEYS = (
    "training.lr",
    "training.epochs",
    "training.batch_size",
    "training.seed",
    "head.hidden",
    "head.mlp",
    "head.dropout",
    "head.type",
    "head",
    "backbone.frozen",
    "backbone",
    "views.test",
    "windows.radius",
    "windows.stride.val",
    "smoothing",
    "smoothing.window",
    "smoothing.filter",
    "priors",
    "priors.type",
    "method",
    "version",
    "name",
    "",
    ".",
    "..",
    "head.",
    ".head",
    "head..hidden",
    "__class__",
    "head.__init__",
    "training",
    "limit",
)
VALUES = (
    "1",
    "-1",
    "0",
    "1e-3",
    "nan",
    "inf",
    "1e400",
    "9" * 30,
    "9" * 5000,
    "none",
    "true",
    "[]",
    "[1,2]",
    "{}",
    "{'a':1}",
    "(1,)",
    "'a'",
    "__import__('os').system('true')",
    "open('x')",
    "[" * 200,
    "(" * 5000,
    "-" * 5000 + "1",
    "lstm",
    "",
    "=",
    "a=b",
    "b'x'",
    "1_0",
    "0x1f",
    "...",
    "...*9",
    "1+1j",
    "{1:{2:{}}}",
    "\x00",
    "\ud800",
    *IDS[:12],
)

settings = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)).map("=".join) | st.sampled_from(VALUES),
    min_size=1,
    max_size=3,
)


def resolve_settings(folder: Path, case: list[str]) -> None:
    from benchmarks.config.resolve import resolve

    resolve("internlstm", settings=case).as_dict()


@functools.cache
def recipe_text() -> str:
    from benchmarks.config.resolve import resolve
    from benchmarks.rows.record import config_file

    return config_file(resolve("internlstm"), "2026-01-01")


@st.composite
def recipes(draw: st.DrawFn) -> Any:
    """A run's config.py, spoilt as bytes, or a line of it replaced."""
    how = draw(st.sampled_from(["bytes", "line", "file"]))
    text = recipe_text()
    if how == "file":
        return draw(file_of(st.just(text.encode())))
    if how == "bytes":
        return draw(spoilt_bytes(text.encode()))
    lines = text.splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    key = lines[number].partition(" ")[0]
    lines[number] = draw(
        st.sampled_from(
            [
                "",
                f"{key} = None",
                f"{key} = 1",
                f"{key} = 'x'",
                f"{key} = []",
                f"{key} = dict(type='nothing')",
                f"{key} = {{1: 2}}",
                "raise ValueError('a\\nb')",
                "raise SystemExit(3)",
                "1 / 0",
                "def f(:",
                "_base_ = 5",
                "_base_ = ['missing.py']",
                "import nothing_of_that_name",
                "x = object()",
                f"{key} = lambda: 0",
                "_base_ = __file__",
                "assert False",
                f"{key} = float('nan')",
                "exit()",
                "raise Exception",
                f"{key} = dict(type=int)",
            ]  # fmt: skip
        )
    )
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def resolve_recipe(folder: Path, case: object) -> None:
    from benchmarks.config.ensemble import resolve_row

    resolve_row(str(folder / "config.py"), "synthlam").as_dict()


# -- plug-ins -----------------------------------------------------------------------------------------------------

DECORATED = "from registry import HEADS\n@HEADS.register_module(name='{own}')\n"
PLUGINS = (
    "def broken(:",
    "raise ValueError('a\\nb')",
    "raise SystemExit",
    "import nothing_of_that_name",
    "1 / 0",
    "x = " + "(" * 300,
    "import sys; sys.exit(3)",
    "raise Exception",
    "raise RuntimeError('\\x1b[2J')",
    "exit()",
    "from registry import HEADS\nHEADS.register_module(name='lstm')(int)",
    "from registry import HEADS\nHEADS.register_module(name='a:b')(int)",
    "from registry import HEADS\nHEADS.register_module(name='')(int)",
    "from registry import HEADS\nHEADS.register_module(name=3)(int)",
    "from registry import HEADS\nHEADS.register_module(name='{own}')(3)",
    "from registry import HEADS\nHEADS.register_module(name='{own}', module=int)",
    "from registry import HEADS\nHEADS.register_module(name='{own}', module=object)",
    f"{DECORATED}class A:\n    def __init__(self, feature_dim, window=7): pass",
    f"{DECORATED}def make(feature_dim: int, window: int = 7):\n    return 3",
    f"{DECORATED}class A:\n    def __init__(self, feature_dim, window=7): 1 / 0",
    "from registry import HEADS\n@HEADS.register_module(name='{own}')\nclass A:\n    def __init__(self): pass",
    "from registry import HEADS\nHEADS.register_module(name='{own}' + 'x' * 100_000)(int)",
    "from registry import HEADS\n" + "HEADS.register_module(name='x\\x1b[2J')(int)",
    "from registry import *\nHEADS.register_module(name='../x')(int)",
    "#" * 100_000,
    "\x00",
    "\ufeffx = 1",
    "# -*- coding: nothing -*-",
    "x = '\\ud800'",
    "import {own}_missing.part",
)


def use_plugin(folder: Path, case: object) -> None:
    from benchmarks.config.resolve import resolve
    from registry import HEADS, load_plugin
    from zoo.weights import build_head

    own = own_name(case)  # a module is imported once by its path
    load_plugin(folder / f"{own}.py")
    if own in HEADS:
        resolve("internlstm", head=own)
        build_head({"type": own, "feature_dim": 4, "window": 7}, {"x": torch.zeros(1)}, str(folder / "x.safetensors"))


def own_name(case: object) -> str:
    """A name that no other case registers."""
    return f"own_{hashlib.sha256(repr(case).encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def write_plugin(folder: Path, case: Any) -> None:
    own = own_name(case)
    if isinstance(case, str):
        case = case.replace("{own}", own).encode("utf-8", "surrogatepass")
    place(folder / f"{own}.py", case)


def _row(folder: Path, case: Any) -> None:
    place(folder / "runs" / "results" / "synthlam" / "row" / "result.json", case)


KINDS = (
    Kind("model folder, opened", model_folder(), lambda folder, case: laid(folder / "mine", case), open_folder),
    Kind("model folder, copied", model_folder(), lambda folder, case: laid(folder / "mine", case), copy_folder),
    Kind("checkpoint, imported", checkpoints, checkpoint_file, import_it),
    Kind(
        "checkpoint of a backbone",
        checkpoints,
        checkpoint_file,
        weights_of_a_backbone,
    ),
    Kind(
        "safetensors of a head",
        checkpoints | about(safetensors_file()),
        checkpoint_file,
        read_a_head,
    ),
    Kind(
        "checkpoint of an unfinished training",
        st.deferred(lambda: st.one_of(spoilt_content(), spoilt_bytes(unfinished_bytes()), file_of(st.just(b"x")))),
        write_unfinished,
        go_on,
        seconds=20,
    ),
    Kind("feature store", store_folder(), lambda folder, case: laid(folder / "store", case), use_store),
    Kind("record, shown", records, _row, read_records),
    Kind("record, exported", records, _row, export_record),
    Kind("settings: --set", settings, lambda folder, case: None, resolve_settings, names_file=False),
    Kind("recipe file", recipes(), lambda folder, case: place(folder / "config.py", case), resolve_recipe),
    Kind("plug-in", st.sampled_from(PLUGINS) | file_of(st.binary(max_size=60)), write_plugin, use_plugin),
)
