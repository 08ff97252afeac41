"""InternViT against the official program's numbers, and loading of damaged and incomplete folders."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from backbones.base import Preprocessing
from backbones.checksums import file_sha256
from backbones.internvit import NANO_FOLDER, read_config
from backbones.internvit_network import InternViTNetwork
from registry import BACKBONES, UserError
from tests.contracts import check_backbone

HOME = Path(__file__).parents[2]
GOLDEN = HOME / "tests" / "golden"
STYLES = ["6b", "300m"]  # RMSNorm, norm of q and k, no qkv bias; LayerNorm, none, bias


def official_folder(style: str, folder: Path) -> dict[str, torch.Tensor]:
    """Write a golden case as a folder in OpenGVLab's format; return its tensors."""
    file = GOLDEN / f"internvit_{style}_style.safetensors"
    with safe_open(file, "pt") as golden:
        config = {
            key: value if key == "norm_type" else json.loads(value.lower()) for key, value in golden.metadata().items()
        }
    tensors = load_file(file)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {key[6:]: tensor for key, tensor in tensors.items() if key.startswith("state.")}, folder / "model.safetensors"
    )
    return tensors


@pytest.fixture(scope="module", params=STYLES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("internvit") / request.param
    return folder, official_folder(request.param, folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the 6B style that a test may damage."""
    official_folder("6b", tmp_path / "model")
    return tmp_path / "model"


@torch.no_grad()
def test_golden(case: tuple[Path, dict]) -> None:
    folder, tensors = case
    backbone = BACKBONES.build({"type": f"internvit:{folder}"})
    for size in ("", "_larger"):
        got = backbone(tensors[f"input.pixel_values{size}"])
        torch.testing.assert_close(got, tensors[f"output.pooled{size}"], atol=1e-4, rtol=0)
    hidden = backbone.network.tokens(tensors["input.pixel_values"])
    torch.testing.assert_close(hidden, tensors["output.last_hidden_state"], atol=1e-4, rtol=0)
    assert backbone.feature_dim == tensors["output.pooled"].shape[1]


@pytest.mark.parametrize("name", ["internvit_6b", "internvit_300m"])
@torch.no_grad()
def test_golden_as_published(name: str, tmp_path: Path) -> None:
    """A folder as on the hub: further keys, shards, an index, an image processor, and code that must not run."""
    style = name.removeprefix("internvit_")
    folder = tmp_path / "tiny-vit"
    tensors = official_folder(style, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["InternVisionModel"],
        "auto_map": {
            "AutoConfig": "configuration_intern_vit.InternVisionConfig",
            "AutoModel": "modeling_intern_vit.InternVisionModel",
        },
        "attention_dropout": 0.0,
        "drop_path_rate": 0.1,
        "dropout": 0.0,
        "initializer_factor": 0.1,
        "initializer_range": 1e-10,
        "model_type": "intern_vit_6b",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.37.2",
        "use_flash_attn": True,
    }
    if style == "6b":
        del config["norm_type"]  # came later
    (folder / "config.json").write_text(json.dumps(config))
    for module in ("configuration_intern_vit", "modeling_intern_vit"):
        (folder / f"{module}.py").write_text("raise SystemExit('remote code was run')")
    processor = {"crop_size": 56, "do_center_crop": True, "feature_extractor_type": "CLIPFeatureExtractor", "size": 56}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    split_into(folder, 3)
    backbone = BACKBONES.build({"type": name, "weights": str(folder)})
    got = backbone(tensors["input.pixel_values"])
    torch.testing.assert_close(got, tensors["output.pooled"], atol=1e-4, rtol=0)
    info = backbone.weights_info
    # By its own name, not by that of the model whose place it takes.
    assert info.name.startswith("tiny-vit (")
    assert "published are " in info.name
    assert info.licence == "unknown"
    assert info.sha256 == file_sha256(*sorted(folder.glob("*.safetensors")))
    assert backbone.fingerprint()["architecture"]["hidden_size"] == got.shape[1]


def split_into(folder: Path, count: int) -> list[Path]:
    """Split a folder's weights into shards with an index, like checkpoints of many GB."""
    state = load_file(folder / "model.safetensors")
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    # In the order of the network, as published shards are.
    keys = sorted(state, key=lambda key: [int(part) if part.isdigit() else part for part in key.split(".")])
    weight_map = {}
    for number, name in enumerate(names):
        chosen = keys[number * len(keys) // count : (number + 1) * len(keys) // count]
        save_file({key: state[key] for key in chosen}, folder / name)
        weight_map |= dict.fromkeys(chosen, name)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return [folder / name for name in names]


def test_different_checkpoints_have_different_fingerprints(folder: Path) -> None:
    def fingerprint() -> dict:
        return BACKBONES.build({"type": f"internvit:{folder}"}).fingerprint()

    first = fingerprint()
    _edit(folder, lambda state: state["encoder.layers.0.ls1"].add_(1e-6))
    second = fingerprint()
    assert second["architecture"] == first["architecture"]
    assert second["weights"] != first["weights"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-5}))
    assert fingerprint()["architecture"] != first["architecture"]


PEAK = """
import sys, torch
from registry import BACKBONES

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

BACKBONES.build({"type": "internvit_nano"})  # what the first one imports is no weight
before = resident()
backbone = BACKBONES.build({"type": "internvit_6b", "weights": sys.argv[1]})
peak = [resident()]

def to_another_device(tensor):  # what .to(device) does with each: reads it, and lets go of it on this side
    tensor.sum()
    peak.append(resident())
    return tensor.to("meta")

backbone._apply(to_another_device)
print(peak[0] - before, max(peak) - before, resident() - before)
"""


@pytest.mark.slow
def test_the_host_holds_one_shard_at_a_time(folder: Path) -> None:
    """Moves 120 MB of weights in three files to another device."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 10, "num_attention_heads": 8}
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        network = InternViTNetwork(read_config(folder))
    empty = {name: torch.zeros(tensor.shape) for name, tensor in network.state_dict().items()}
    save_file(empty, folder / "model.safetensors")
    del empty
    largest = max(file.stat().st_size for file in split_into(folder, 3)) / 2**20
    total = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**20
    assert total > 115
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder)], capture_output=True, text=True, check=True, cwd=HOME
    )
    built, peak, after = map(float, done.stdout.split())
    assert built < 25, "building reads the weights"
    assert peak < largest + 25
    assert after < 25


def test_contract(case: tuple[Path, dict]) -> None:
    check_backbone({"type": "internvit", "model": str(case[0])})


def test_nano_is_an_internvit_and_small() -> None:
    nano = BACKBONES.build({"type": "internvit_nano"})
    assert nano.architecture["norm_type"] == "rms_norm"
    assert nano.architecture["qk_normalization"] is True
    assert nano.architecture["qkv_bias"] is False
    assert 1e6 < sum(parameter.numel() for parameter in nano.parameters()) < 3e6
    assert (NANO_FOLDER / "model.safetensors").stat().st_size < 6e6
    assert all(parameter.dtype == torch.float32 for parameter in nano.parameters())


@torch.no_grad()
def test_several_files_give_the_same_features(case: tuple[Path, dict], tmp_path: Path) -> None:
    folder, tensors = case
    split = tmp_path / "split"
    split.mkdir()
    shutil.copy(folder / "config.json", split)
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, chosen in halves.items():
        save_file({name: state[name] for name in chosen}, split / file)
    whole = BACKBONES.build({"type": f"internvit:{folder}"})
    images = tensors["input.pixel_values"]
    assert torch.equal(BACKBONES.build({"type": f"internvit:{split}"})(images), whole(images))
    # With an index, what it does not name is not read.
    index = {"weight_map": {name: file for file, chosen in halves.items() for name in chosen}}
    (split / "model.safetensors.index.json").write_text(json.dumps(index))
    (split / "other.safetensors").write_bytes(b"not read")
    assert torch.equal(BACKBONES.build({"type": f"internvit:{split}"})(images), whole(images))
    (split / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match="index.json names model-2.safetensors, which does not exist"):
        BACKBONES.build({"type": f"internvit:{split}"})


@torch.no_grad()
def test_bfloat16_stays_bfloat16(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in state.items()}, folder / "model.safetensors")
    backbone = BACKBONES.build({"type": f"internvit:{folder}"})
    images = torch.zeros(1, 3, 56, 56)
    assert backbone(images).dtype == torch.bfloat16
    assert backbone.float()(images).dtype == torch.float32


def test_preprocessing_of_a_folder(folder: Path) -> None:
    def preprocessing(**data) -> Preprocessing:
        (folder / "preprocessor_config.json").write_text(json.dumps(data))
        return BACKBONES.build({"type": f"internvit:{folder}"}).preprocessing

    plain = Preprocessing(size=56, resize=56)
    assert BACKBONES.build({"type": f"internvit:{folder}"}).preprocessing == plain
    # As OpenGVLab writes it.
    words = {"do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3}
    numbers = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    assert preprocessing(**words, **numbers, size=56, crop_size=56) == plain
    assert preprocessing(
        size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}, resample=2
    ) == Preprocessing(size=56, resize=64, interpolation="bilinear")
    with pytest.raises(UserError, match="crops 60, but the network's image_size is 56"):
        preprocessing(size=60, crop_size=60)
    with pytest.raises(UserError, match="resizes to 40 and crops 56"):
        preprocessing(size=40)
    with pytest.raises(UserError, match="preprocessor_config.json is not a configuration"):
        preprocessing(resample=9)


def _edit(folder: Path, change) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda s: s.pop("encoder.layers.1.attn.qkv.weight"),
            "model.safetensors lacks tensor 'encoder.layers.1.attn.qkv.weight'",
        ),
        (lambda s: s.update({"head.weight": torch.zeros(2)}), "model.safetensors has an unknown tensor 'head.weight'"),
        (
            lambda s: s.update({"encoder.layers.0.ls1": torch.zeros(5)}),
            r"model.safetensors: tensor 'encoder.layers.0.ls1' has shape \(5,\), the model's is \(96,\)",
        ),
        (
            lambda s: s.update({"encoder.layers.0.attn.qkv.weight": torch.zeros(287, 96)}),
            r"tensor 'encoder.layers.0.attn.qkv.weight' has shape \(287, 96\), the model's is \(288, 96\)",
        ),
        (
            lambda s: s.update({"encoder.layers.1.ls2": torch.zeros(96, dtype=torch.bfloat16)}),
            "model.safetensors: tensor 'encoder.layers.1.ls2' is bfloat16, others float32",
        ),
    ],
)
def test_wrong_tensors(folder: Path, change, words: str) -> None:
    _edit(folder, change)
    with pytest.raises(UserError, match=words):
        BACKBONES.build({"type": f"internvit:{folder}"})


def test_incomplete_folders(folder: Path) -> None:
    def build() -> None:
        BACKBONES.build({"type": "internvit_6b", "weights": str(folder)})

    files = split_into(folder, 3)
    whole = files[1].read_bytes()
    for damage in (whole[:-1], whole[: len(whole) // 2], whole[:5], b""):
        files[1].write_bytes(damage)
        with pytest.raises(UserError, match=f"{files[1].name} is damaged, incomplete or not a safetensors file"):
            build()
    files[1].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4988565944\n")
    with pytest.raises(UserError, match=f"{files[1].name} is a Git LFS pointer.*git lfs pull"):
        build()
    files[1].unlink()
    with pytest.raises(UserError, match=f"index.json names {files[1].name}, which does not exist in .*model$"):
        build()
    for place in (folder / ".cache" / "huggingface" / "download", folder):  # of hf download --local-dir, and of others
        place.mkdir(parents=True, exist_ok=True)
        (place / "x.safetensors.0123.incomplete").write_bytes(whole[:99])
        with pytest.raises(UserError, match="which does not exist in .*; a download is unfinished: start it again"):
            build()
        (place / "x.safetensors.0123.incomplete").unlink()
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=r"\(2 files\) lacks tensor 'encoder.layers"):
        build()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hidden_size": "96"}, "hidden_size is '96'; it must be a whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be a whole number from 1"),
        ({"num_attention_heads": 7}, "hidden_size 96 is not a multiple of num_attention_heads 7"),
        ({"norm_type": "batch_norm"}, "norm_type is 'batch_norm'; it must be rms_norm or layer_norm"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; it must be gelu"),
        ({"num_channels": 4}, "num_channels is 4; it must be 3"),
    ],
)
def test_configurations_of_other_networks(folder: Path, values: dict, words: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    with pytest.raises(UserError, match=words):
        BACKBONES.build({"type": f"internvit:{folder}"})


def test_damaged_folders(folder: Path, tmp_path: Path) -> None:
    file, config = folder / "model.safetensors", folder / "config.json"
    whole = file.read_bytes()
    for damage in (whole[: len(whole) // 2], whole[:5], b"", b"<html>not found</html>"):
        file.write_bytes(damage)
        with pytest.raises(UserError, match="model.safetensors is damaged"):
            BACKBONES.build({"type": f"internvit:{folder}"})
    file.write_bytes(whole)
    shutil.copy(file, folder / "twice.safetensors")
    with pytest.raises(UserError, match="twice.safetensors: tensor '.*' is in two files"):
        BACKBONES.build({"type": f"internvit:{folder}"})
    (folder / "twice.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(UserError, match="index.json is not an index"):
        BACKBONES.build({"type": f"internvit:{folder}"})
    (folder / "model.safetensors.index.json").unlink()
    file.unlink()
    with pytest.raises(UserError, match=r"has no \*.safetensors file"):
        BACKBONES.build({"type": f"internvit:{folder}"})
    config.write_text('{"hidden_size": 96}')
    with pytest.raises(UserError, match="config.json lacks 'num_hidden_layers'"):
        BACKBONES.build({"type": f"internvit:{folder}"})
    config.write_text("{")
    with pytest.raises(UserError, match="config.json is not JSON"):
        BACKBONES.build({"type": f"internvit:{folder}"})
    config.unlink()
    with pytest.raises(UserError, match="has no config.json"):
        BACKBONES.build({"type": f"internvit:{folder}"})
    with pytest.raises(UserError, match="nope does not exist"):
        BACKBONES.build({"type": f"internvit:{tmp_path / 'nope'}"})


@pytest.mark.parametrize("name", ["internvit_6b", "internvit_300m"])
def test_without_weights_both_options_are_named(name: str) -> None:
    with pytest.raises(
        UserError,
        match=r"weights=DIR with a copy \(hf download (OpenGVLab/InternViT-\S+) --local-dir DIR\), or weights=\1",
    ):
        BACKBONES.build({"type": name})


# -- the hub ------------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A hub's cache that a test may fill, and no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
@torch.no_grad()
def test_from_the_hubs_cache(cache: Path, folder: Path, revision: str) -> None:
    repository = cache / "models--OpenGVLab--InternViT-6B-448px-V1-5"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    model = f"OpenGVLab/InternViT-6B-448px-V1-5{revision}"
    local = BACKBONES.build({"type": f"internvit:{folder}"})
    for config in ({"type": f"internvit:{model}"}, {"type": "internvit_6b", "weights": model}):
        backbone = BACKBONES.build(config)
        assert backbone.weights_info.origin == f"hub:OpenGVLab/InternViT-6B-448px-V1-5@{COMMIT}"
        assert backbone.weights_info.name.startswith("OpenGVLab/InternViT-6B-448px-V1-5")
        assert backbone.weights_info.licence == "MIT"
        assert backbone.fingerprint() == local.fingerprint()


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("revision", ["", "@v1"])
def test_missing_in_the_cache_is_an_error_at_once(revision: str) -> None:
    start = time.monotonic()
    option = " --revision v1" if revision else ""
    with pytest.raises(
        UserError,
        match=f"OpenGVLab/Nope{revision} is neither a folder nor in the hub's cache.*the hub is out of reach.*"
        f"hf download OpenGVLab/Nope{option} --local-dir DIR with network access, then give DIR instead",
    ):
        BACKBONES.build({"type": "internvit_6b", "weights": f"OpenGVLab/Nope{revision}"})
    assert time.monotonic() - start < 5


def test_a_folder_comes_before_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    (folder.parent / "OpenGVLab").mkdir()
    folder.rename(folder.parent / "OpenGVLab" / "mine")
    backbone = BACKBONES.build({"type": "internvit:OpenGVLab/mine"})
    assert backbone.weights_info.origin == "OpenGVLab/mine"
    assert backbone.weights_info.licence == "unknown"
