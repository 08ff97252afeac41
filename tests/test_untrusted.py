"""Untrusted files of all kinds: no code in them runs, and none takes more memory than its size justifies.

The canary is a file that a payload creates when it runs; the tests also show that it runs with unrestricted loading.
"""

import io
import json
import pickle
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import bench
from backbones.checkpoints import load_checkpoint
from backbones.internvit import NANO_FOLDER
from benchmarks.training.checkpoint import CHECKPOINT, write_state
from registry import BACKBONES, UserError
from tests.benchmarks.training.test_train import run as train_toy
from tests.zoo.test_models import write as write_model_folder
from zoo.cards import in_markdown
from zoo.model import read_model
from zoo.models import copy_model, open_model
from zoo.weights import METADATA_KEY, read_head


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple:
        return eval, (f"open({self.canary!r}, 'w').close()",)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def pickled(path: Path, canary: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": Payload(canary)}, path)
    return path


def sealed(folder: Path, file: str) -> None:
    """Update the sha256 in the card of a model folder."""
    import hashlib

    card = json.loads((folder / "card.json").read_text())
    card["weights"][0].update(file=file, sha256=hashlib.sha256((folder / file).read_bytes()).hexdigest())
    (folder / "card.json").write_text(json.dumps(card))


# -- pickles ------------------------------------------------------------------------------------------------------


def model_folder(tmp_path: Path, canary: Path) -> None:
    write_model_folder(tmp_path / "mine", {"type": "tiny_means"})
    pickled(tmp_path / "mine" / "model.safetensors", canary)
    sealed(tmp_path / "mine", "model.safetensors")
    open_model(str(tmp_path / "mine"))


def head_file(tmp_path: Path, canary: Path) -> None:
    read_head(pickled(tmp_path / "head.safetensors", canary))


def weights_of_timm(tmp_path: Path, canary: Path) -> None:
    BACKBONES.build({"type": "timm:resnet10t", "weights": str(pickled(tmp_path / "w.pth", canary))})


def weights_of_the_trunk(tmp_path: Path, canary: Path) -> None:
    BACKBONES.build({"type": "gaze_resnet18", "weights": str(pickled(tmp_path / "w.safetensors", canary))})


def internvit_folder(tmp_path: Path, canary: Path) -> None:
    shutil.copytree(NANO_FOLDER, tmp_path / "vit")
    pickled(tmp_path / "vit" / "model.safetensors", canary)
    BACKBONES.build({"type": f"internvit:{tmp_path / 'vit'}"})


def imported(tmp_path: Path, canary: Path) -> None:
    from zoo.upstream import import_checkpoint

    import_checkpoint(pickled(tmp_path / "x.pth", canary), "internlstm", tmp_path / "y.safetensors")


def interrupted_training(tmp_path: Path, canary: Path) -> None:
    pickled(tmp_path / "run" / "seed1" / CHECKPOINT, canary)
    train_toy(tmp_path / "run")


@pytest.mark.parametrize(
    "door",
    [model_folder, head_file, weights_of_timm, weights_of_the_trunk, internvit_folder, imported, interrupted_training],
    ids=lambda door: door.__name__,
)
@pytest.mark.parametrize("forced", [False, True])
def test_a_payload_does_not_run(
    tmp_path: Path, canary: Path, door: Callable, forced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even with torch's environment variable that makes unrestricted loading the default."""
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match=str(tmp_path)):
        door(tmp_path, canary)
    assert not canary.exists()
    torch.load(pickled(tmp_path / "sings.pth", canary), weights_only=False)
    assert canary.exists()


def test_numpy_pickles_are_not_read(tmp_path: Path, canary: Path) -> None:
    from benchmarks.pixels.sharpness import sharpness

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    path = tmp_path / "sharpness.npz"
    np.savez(path, images=np.array([Payload(canary)], dtype=object), sharpness=np.zeros(1), sha256=np.zeros(1))
    assert not canary.exists()
    content = path.read_bytes()
    assert sharpness(tmp_path, ["a.png"], path).tolist() == [0]
    assert not canary.exists()
    np.load(io.BytesIO(content), allow_pickle=True)["images"]
    assert canary.exists()


# -- code that is not pickled -------------------------------------------------------------------------------------


def test_a_record_that_names_a_dataset_file_does_not_run_it(tmp_path: Path, canary: Path) -> None:
    """`--dataset FILE.py` is code chosen by the user; a path in a record is not."""
    code = tmp_path / "evil.py"
    code.write_text(f"open({str(canary)!r}, 'w').close()\ntype = 'synthlam'\n")
    record = json.loads((Path(__file__).parents[1] / "benchmarks/records/synthlam/internlstm.json").read_text())
    record["config"]["dataset"] = record["dataset"]["name"] = str(code)
    row = tmp_path / "runs" / "results" / "synthlam" / "row"
    row.mkdir(parents=True)
    (row / "result.json").write_text(json.dumps(record))
    (row / "config.py").write_text(code.read_text())
    for command in (["export", str(row), "-o", str(tmp_path / "out")], ["show", str(row)]):
        bench.main(command)
        assert not canary.exists()
    from benchmarks.config.files import load_dataset

    load_dataset(str(code))
    assert canary.exists()


def test_code_in_a_models_folder_does_not_run(tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    write_model_folder(folder, {"type": "tiny_means"})
    for name in ("config", "modeling_lamzoo", "__init__", "sitecustomize", "plugin", "torch", "tiny_means"):
        (folder / f"{name}.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "modeling_lamzoo.Model"}, "architectures": ["os.system"], "plugin": "plugin"}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(folder)
    assert open_model(str(folder)).name == "mine"
    assert open_model(".").name == "mine"
    assert not canary.exists()


@pytest.mark.parametrize(
    "kind", ["os.system", "builtins:eval", "json", "torch.nn.Linear", "../evil", "", None, 3, ["lstm"]]
)
@pytest.mark.parametrize("part", ["backbone", "head"])
def test_unknown_parts_are_refused(tmp_path: Path, part: str, kind: object) -> None:
    parts: dict[str, Any] = {"backbone": {"type": "tiny_means"}, "head": {"type": "probe", "window": 7}}
    parts[part] = {**parts[part], "type": kind}
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {METADATA_KEY: json.dumps(parts)})
    with pytest.raises(UserError, match=f"weights {tmp_path}.*(unknown {part}|must be its name|takes no model)"):
        read_model(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "backbone",
    [
        {"type": "tiny_means", "weights": "/etc/hostname"},
        {"type": "timm:resnet10t"},  # pretrained unless it says otherwise: the hub would be asked
        {"type": "timm:resnet10t", "pretrained": True},
        {"type": "internvit:someone/looking"},
        {"type": "internvit", "model": "../../elsewhere"},
        {"type": "internvit_6b", "weights": "OpenGVLab/InternViT-6B-448px-V1-5"},
        {"type": "gaze_resnet18", "pretrained": "imagenet"},
    ],
    ids=lambda backbone: json.dumps(backbone),
)
def test_a_model_file_cannot_request_other_files(
    tmp_path: Path, backbone: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("the network was asked"))
    about = {"backbone": backbone, "head": {"type": "probe", "window": 7}}
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {METADATA_KEY: json.dumps(about)})
    with pytest.raises(UserError, match="x.safetensors: its backbone refers to .*must hold its backbone.s weights"):
        read_model(tmp_path / "x.safetensors")


def test_a_backbone_named_in_config_json_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model_folder(tmp_path / "mine", {"type": "tiny_means"})
    state = load_file(tmp_path / "mine" / "model.safetensors")
    head = {"type": "gru", "projection": 4, "hidden": 4, "mlp": [4], "feature_dim": 48, "window": 7}
    own = {name.removeprefix("head."): tensor for name, tensor in state.items() if name.startswith("head.")}
    save_file(own, tmp_path / "mine" / "head.safetensors", {METADATA_KEY: json.dumps({"head": head})})
    (tmp_path / "mine" / "model.safetensors").unlink()
    sealed(tmp_path / "mine", "head.safetensors")
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    config["backbone"] = {"type": "internvit:someone/looking"}
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("the network was asked"))
    with pytest.raises(UserError, match="repositories named by a file are not downloaded.*change 'backbone' in"):
        open_model(str(tmp_path / "mine"))


# -- paths and links ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["../secret", "{secret}", "a/../../secret", "model.safetensors/../../secret"])
def test_paths_in_a_card_are_not_followed(tmp_path: Path, file: str) -> None:
    """Neither when a model is opened nor when it is copied."""
    (tmp_path / "secret").write_text("secret")
    write_model_folder(tmp_path / "mine", {"type": "tiny_means"})
    card = json.loads((tmp_path / "mine" / "card.json").read_text())
    card["weights"][0]["file"] = file.format(secret=tmp_path / "secret")
    (tmp_path / "mine" / "card.json").write_text(json.dumps(card))
    for use in (open_model, lambda name: copy_model(name, tmp_path / "copy")):
        with pytest.raises(UserError, match="the sha256 of .* differs from the one in .*card.json"):
            use(str(tmp_path / "mine"))
    assert not (tmp_path / "copy").exists()


def test_a_link_to_a_secret_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    write_model_folder(tmp_path / "mine", {"type": "tiny_means"})
    for name in ("model.safetensors", "head.safetensors"):
        (tmp_path / "mine" / "model.safetensors").unlink(missing_ok=True)
        (tmp_path / "mine" / name).unlink(missing_ok=True)
        (tmp_path / "mine" / name).symlink_to(tmp_path / "secret")
        with pytest.raises(UserError, match="the sha256 of .* differs|must hold"):
            copy_model(str(tmp_path / "mine"), tmp_path / "copy")
        assert not list((tmp_path / "copy").rglob("*"))


def test_an_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(NANO_FOLDER, tmp_path / "vit")
    shutil.copy(NANO_FOLDER / "model.safetensors", tmp_path / "elsewhere.safetensors")
    for name in ("../elsewhere.safetensors", str(tmp_path / "elsewhere.safetensors"), "config.json"):
        index = {"weight_map": {"a": name}}
        (tmp_path / "vit" / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(UserError, match="is not an index of safetensors files"):
            BACKBONES.build({"type": f"internvit:{tmp_path / 'vit'}"})


# -- sizes --------------------------------------------------------------------------------------------------------


def grown(use: Callable[[], object], words: str) -> None:
    """Check that the file is refused and that the process did not grow."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=words):
        use()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


@pytest.mark.parametrize(
    "sizes",
    [
        {"type": "lstm", "hidden": 10**9},
        {"type": "lstm", "layers": 10**9},
        {"type": "lstm", "hidden": 20_000, "projection": 20_000},
        {"type": "transformer", "width": 10**8, "depth": 4},
        {"type": "transformer", "depth": 10**9},
        {"type": "gru", "mlp": [10**6] * 3},
        {"type": "probe", "feature_dim": 10**11},
        {"type": "probe", "window": 10**9 + 1},
        {"type": "gazepose", "feature_dim": 256, "grid": 10**5},
        {"type": "gazepose", "feature_dim": 256, "encoder_layers": 10**9},
    ],
    ids=str,
)
def test_heads_of_absurd_sizes_are_refused(tmp_path: Path, sizes: dict) -> None:
    about = {"head": {"feature_dim": 48, "window": 7, **sizes}}
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {METADATA_KEY: json.dumps(about)})
    assert (tmp_path / "x.safetensors").stat().st_size < 1000
    grown(lambda: read_head(tmp_path / "x.safetensors"), "x.safetensors")


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 10**9},
        {"hidden_size": 10**6, "intermediate_size": 10**6},
        {"num_hidden_layers": 10**6},
        {"image_size": 10**6},
        {"patch_size": 10**6},
        {"layer_norm_eps": "1e-6"},
        {"layer_norm_eps": float("nan")},
        {"qkv_bias": [0]},
    ],
    ids=str,
)
def test_backbones_of_absurd_sizes_are_refused(tmp_path: Path, sizes: dict) -> None:
    shutil.copytree(NANO_FOLDER, tmp_path / "vit")
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    (tmp_path / "vit" / "config.json").write_text(json.dumps({**config, **sizes}))
    grown(lambda: BACKBONES.build({"type": f"internvit:{tmp_path / 'vit'}"}), str(tmp_path / "vit"))


@pytest.mark.slow
def test_a_network_larger_than_its_file_is_refused_while_built(tmp_path: Path) -> None:
    about = {"backbone": {"type": "timm:vit_large_patch16_224", "pretrained": False}, "head": {"type": "probe"}}
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {METADATA_KEY: json.dumps(about)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="far larger than the tensors in it"):
        read_model(tmp_path / "x.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # KB, of 1.2 GB


def test_false_headers(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for header in (
        (1 << 62).to_bytes(8, "little"),
        (100).to_bytes(8, "little") + b"{}",
        b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}',
        b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"__metadata__":{"lamzoo":"' + b"[" * 5000 + b'"}}',
        b'{"__metadata__":{"lamzoo":"[]"}}',
    ):
        content = header if header[:1] != b"{" else len(header).to_bytes(8, "little") + header
        path.write_bytes(content + b"\0" * 4 * (header[:1] == b"{" and b"metadata" not in header))
        grown(lambda: read_head(path), "x.safetensors")
        grown(lambda: read_model(path), "x.safetensors")


def test_tensors_that_claim_more_than_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"fc1.weight": torch.zeros(1).expand(20_000, 200_000)}, path)
    with pytest.raises(ValueError, match="its tensors claim 16,000,000,000 bytes, the file has"):
        load_checkpoint(path)
    tied = torch.rand(100, 100)
    torch.save({"a": tied, "b": tied, "c": tied[:50]}, path)
    assert torch.equal(load_checkpoint(path)["c"], tied[:50])


def test_a_compressed_checkpoint_is_refused(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save({"a": torch.zeros(1_000_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert packed.stat().st_size < 20_000
    with pytest.raises(ValueError, match="a compressed archive"):
        load_checkpoint(packed)
    assert load_checkpoint(plain)["a"].shape == (1_000_000,)


# -- text that others read ----------------------------------------------------------------------------------------


def test_markdown_shows_text_literally() -> None:
    assert in_markdown("a | b\n\n# <c> `d` [e](f) ~g~ h_i **j** \\") == (
        r"a \| b # \<c\> \`d\` \[e\](f) \~g\~ h_i \*\*j\*\* \\"
    )
    MarkdownIt = pytest.importorskip("markdown_it").MarkdownIt  # noqa: N806 - a class
    for text in (
        "a | b",
        "<script>alert(1)</script>",
        "![x](javascript:alert(1))",
        "**b** `c` ~~d~~",
        "a\n\n# b",
        "\\",
    ):
        table = f"| x |\n| --- |\n| {in_markdown(text)} |"
        html = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(table)
        for tag in ("<script", "<img", "<a ", "<strong", "<code", "<s>", "<h1"):
            assert tag not in html
        assert html.count("<td>") == 1


def test_bare_pickles_with_a_payload_are_refused(tmp_path: Path, canary: Path) -> None:
    """Under each suffix that is read."""
    for suffix in (".pth", ".pt", ".bin", ".safetensors", ".pkl"):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(pickle.dumps({"a": Payload(canary)}))
        with pytest.raises(UserError):
            BACKBONES.build({"type": "timm:resnet10t", "weights": str(path)})
        assert not canary.exists()


# -- what fuzzing found -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"\x80", b"\x80\x04", b"PK\x03\x04", b"\0" * 8 + b"{"], ids=repr)
def test_truncated_checkpoints(tmp_path: Path, content: bytes) -> None:
    from backbones.foreign import read_checkpoint

    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match="x.pth"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("config.changes", "text", "config.changes: expected array, got str"),
        ("backbone.weights.random_init", 1, "weights.random_init: expected bool, got int"),
        ("splits.test.metrics.mAP.per_seed", [0.5], "per_seed has 1 entries, not 20"),
        ("splits.test.metrics.mAP.mean", "0.5", "mean: expected float \\| null, got str"),
        ("splits.test.confusion", {}, "confusion: lacks 'true_positives'"),
        ("seconds.features", 10**400, "seconds.features is 1000.*; it must be finite"),
        ("environment.code", None, "environment.code: expected object, got null"),
        ("seeds", [True], "seeds\\[0\\]: expected int, got bool"),
        ("training", [], "training has 0 entries"),
        ("date", 3, "date: expected str, got int"),
        ("schema", [2], r"has schema \[2\], this program reads 1"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_records_are_checked_when_read(tmp_path: Path, path: str, value: Any, words: str) -> None:
    from benchmarks.rows.schema import read_result

    record = json.loads((Path(__file__).parents[1] / "benchmarks/records/synthlam/internlstm.json").read_text())
    *keys, last = path.split(".")
    node = record
    for key in keys:
        node = node[key]
    node[last] = value
    (tmp_path / "result.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"result.json.*{words}"):
        read_result(tmp_path / "result.json")


def test_a_record_over_other_clips_is_no_tie(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    record = json.loads((Path(__file__).parents[1] / "benchmarks/records/synthlam/probe.json").read_text())
    for split in record["splits"].values():
        split["without_clip"].popitem()
    row = tmp_path / "results" / "synthlam" / "probe"
    row.mkdir(parents=True)
    (row / "result.json").write_text(json.dumps(record))
    assert bench.main(["table", "--out", str(tmp_path)]) == 0
    assert "Linear probe" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "@HEADS.register_module(name='{own}')\nclass A:\n    def __init__(self, feature_dim): pass",
            "makes a A; it must",
        ),
        ("@HEADS.register_module(name='{own}')\ndef make(feature_dim: int):\n    return 3", "makes a int; it must"),
        (
            "@HEADS.register_module(name='{own}')\nclass A:\n    def __init__(self, feature_dim): 1 / 0",
            "ZeroDivisionError",
        ),
        ("HEADS.register_module(name='{own}', module=int)", "has no readable signature"),
    ],
    ids=range(4),
)
def test_a_plug_in_of_another_class(tmp_path: Path, code: str, words: str) -> None:
    from registry import HEADS, load_plugin

    own = f"own_{tmp_path.name}"
    (tmp_path / f"{own}.py").write_text("from registry import HEADS\n" + code.format(own=own) + "\n")
    with pytest.raises(UserError, match=f"{own}.*{words}"):
        load_plugin(tmp_path / f"{own}.py")
        HEADS.build({"type": own, "feature_dim": 4})


def test_a_checkpoint_of_another_training_is_not_resumed(tmp_path: Path) -> None:
    from tests.fuzz.trainings import unfinished

    sound = unfinished()
    path = tmp_path / "run" / "seed1" / CHECKPOINT
    first = next(iter(sound["tensors"]))
    for part, key, value in (
        ("tensors", first, torch.zeros(1)),
        ("tensors", first, None),
        ("tensors", "model.x", torch.zeros(1)),
        ("tensors", next(name for name in sound["tensors"] if name.startswith("adam.step")), torch.zeros(2)),
        ("numbers", "epoch", 10**9),
        ("numbers", "epoch", "text"),
        ("numbers", "lr", 0.1),
        ("numbers", "history", [{"epoch": 1}]),
        ("numbers", "best_epoch", 0),
        ("numbers", "best_map", float("nan")),
        ("numbers", "best_map", None),
    ):
        content = {name: dict(values) for name, values in sound.items()}
        content[part][key] = value
        if value is None:
            del content[part][key]
        write_state(path, content["tensors"], content["numbers"])
        with pytest.raises(UserError, match=r"cannot resume from .*checkpoint.safetensors .*; delete it") as error:
            train_toy(tmp_path / "run")
        assert "\n" not in str(error.value)
    write_state(path, sound["tensors"], sound["numbers"])
    assert train_toy(tmp_path / "run")["best_epoch"] > 0


@pytest.mark.parametrize(
    "record",
    [
        {"rows": {"../../elsewhere": ["c1/a.jpg"]}, "dtype": "F32", "bytes": 16},
        {"damaged": {"../../elsewhere": ["c1/a.jpg"]}, "bytes": 0},
        {"rows": {"/tmp": ["c1/a.jpg"]}, "dtype": "F32", "bytes": 16},
        {"rows": {"original": ["c2/a.jpg"]}, "dtype": "F32", "bytes": 16},
        {"rows": {"original": ["c1/a.jpg"]}, "dtype": "F32", "bytes": 4},
        {"rows": {"original": ["c1/a.jpg"]}, "dtype": "F64", "bytes": 16},
        {"rows": "text", "bytes": 0},
        {"damaged": "text", "bytes": 0},
        {"bytes": -1},
        {"bytes": 1 << 40},
        [],
    ],
    ids=str,
)
def test_a_store_journal_cannot_write_elsewhere(tmp_path: Path, record: Any) -> None:
    """The checksum is correct; the next record requests the write."""
    import zlib

    from benchmarks.features.store import FeatureStore

    folder = tmp_path / "a" / "b" / "store"
    store = FeatureStore(folder, {"a": 1})
    store.create(4)
    lines = b""
    for content in (record, {"end": True, "bytes": 0}):
        if isinstance(content, dict):
            content = {**content, "fingerprint": store.digest}
        line = json.dumps(content).encode() + b"\n"
        data = bytes(16 if isinstance(content, dict) and content.get("bytes") == 16 else 0)
        lines += line + data + zlib.crc32(data, zlib.crc32(line)).to_bytes(4, "little")
    (folder / ".c1.part").write_bytes(lines)
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(folder)}
    shard = store.open("c1")
    assert shard is not None
    assert not shard.has("original", "c1/a.jpg")
    shard.close()
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(folder)} == before
    assert not list(folder.glob("*/*.safetensors"))
