"""Preprocessing against transformers' numbers, freezing, and fingerprints."""

import dataclasses
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from backbones import checksums
from backbones.base import Backbone, Preprocessing, WeightsInfo, check_state, state_sha256
from backbones.checksums import file_sha256
from registry import UserError

GOLDEN = Path(__file__).parents[1] / "golden" / "preprocess"
SIZES = json.loads((GOLDEN / "sizes.json").read_text())


@pytest.mark.parametrize("name", SIZES)
def test_preprocessing_is_the_clip_processors(name: str) -> None:
    expected = load_file(GOLDEN / "expected.safetensors")
    size = SIZES[name]["size"]
    preprocessing = Preprocessing(size=size, resize=size)
    pixels = preprocessing.resize_crop(Image.open(GOLDEN / name))
    stem = name.removesuffix(".png")
    wanted = expected[f"{stem}.resized_uint8"].numpy()
    assert np.abs(pixels.astype(int) - wanted).max() <= 1  # grey level
    normalised = preprocessing.normalise(torch.from_numpy(pixels)[None])[0]
    torch.testing.assert_close(normalised, expected[f"{stem}.pixel_values"], atol=1.01 / 255 / 0.224, rtol=0)


def test_normalise_by_hand() -> None:
    preprocessing = Preprocessing(size=1, resize=1, mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 2.0))
    batch = torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8)
    # (1 - .5) / .5 = 1, (0 - .25) / .5 = -.5, .2 / 2 = .1
    torch.testing.assert_close(preprocessing.normalise(batch).flatten(), torch.tensor([1.0, -0.5, 0.1]))
    assert batch.flatten().tolist() == [255, 0, 51]


def test_resize_then_crop_a_margin() -> None:
    # 100 x 50: the shorter edge becomes 20, the longer 40; the middle 10 x 10 starts at (15, 5).
    picture = Image.fromarray(np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (50, 1, 3)))
    pixels = Preprocessing(size=10, resize=20, interpolation="bilinear").resize_crop(picture)
    reference = np.asarray(picture.resize((40, 20), Image.Resampling.BILINEAR))[5:15, 15:25]
    assert np.array_equal(pixels, reference)


@pytest.mark.parametrize("name", SIZES)
def test_a_resized_crop_is_the_clip_processors(name: str) -> None:
    size = SIZES[name]["size"]
    pixels = torch.from_numpy(Preprocessing(size=size, resize=size).resize_crop(Image.open(GOLDEN / name)))
    wanted = load_file(GOLDEN / "expected.safetensors")[f"{name.removesuffix('.png')}.resized_uint8"]
    assert (pixels.int() - wanted.int()).abs().max() <= 1  # grey level


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_any_mode_becomes_rgb(mode: str) -> None:
    assert Preprocessing(size=8, resize=8).resize_crop(Image.new(mode, (9, 12))).shape == (8, 8, 3)


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images).mean((2, 3))


def make(frozen: bool, sha256: str | None = "a" * 64, **preprocessing) -> Backbone:
    torch.manual_seed(0)
    return Backbone(
        _Network(),
        architecture={"name": "toy"},
        feature="mean",
        feature_dim=4,
        preprocessing=Preprocessing(size=8, resize=8, **preprocessing),
        weights_info=WeightsInfo("toy", "test", sha256, "Apache-2.0"),
        frozen=frozen,
    )


def test_frozen_stays_frozen_and_trainable_trains() -> None:
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for frozen in (True, False):
        backbone = make(frozen)
        before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
        model = nn.Sequential(backbone, nn.Linear(4, 1)).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(images).sum().backward()
        optimizer.step()
        equal = {name: torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items()}
        assert all(equal.values()) if frozen else not any(equal.values())  # BatchNorm's running figures included
        assert backbone.network.layers[1].training is not frozen
        assert all(parameter.requires_grad is not frozen for parameter in backbone.parameters())


def test_fingerprint_changes_with_everything_that_changes_features() -> None:
    base = make(True).fingerprint()
    assert base == make(True).fingerprint()
    assert json.loads(json.dumps(base)) == base
    others = [
        make(True, sha256="b" * 64).fingerprint(),
        make(True, interpolation="bilinear").fingerprint(),
        make(True, mean=(0.5, 0.5, 0.5)).fingerprint(),
        make(True).fingerprint("bfloat16"),
    ]
    assert all(other != base for other in others)


def test_encoder_is_normalise_and_forward() -> None:
    backbone = make(True)
    pixels = torch.randint(0, 256, (7, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = pixels.clone()
    features = backbone.encoder("cpu")(pixels)
    torch.testing.assert_close(features, backbone(backbone.preprocessing.normalise(pixels)))
    assert torch.equal(pixels, before)
    assert not features.requires_grad
    # Whatever else is in the batch, and however large it is.
    assert torch.equal(backbone.encoder("cpu")(pixels[5:6])[0], features[5])
    assert backbone.encoder("cpu")(pixels[:0]).shape == (0, 4)


def test_encoder_in_another_dtype_leaves_the_backbone_alone() -> None:
    backbone = make(True)
    fingerprint = backbone.fingerprint()
    pixels = torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exact, rounded = backbone.encoder("cpu")(pixels), backbone.encoder("cpu", "bfloat16")(pixels)
    assert (exact.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    assert not torch.equal(exact, rounded.float())
    torch.testing.assert_close(rounded.float(), exact, atol=0.02, rtol=0.02)
    assert {tensor.dtype for tensor in backbone.parameters()} == {torch.float32}
    assert backbone.fingerprint() == fingerprint
    for dtype in ("float8", "int8"):
        with pytest.raises(UserError, match=f"unknown dtype '{dtype}' .known: float32, bfloat16, float16"):
            backbone.encoder("cpu", dtype)


@pytest.mark.gpu("a CUDA device")
def test_on_a_gpu() -> None:
    random = torch.Generator().manual_seed(0)
    backbone = make(True)
    pixels = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8, generator=random)
    features = backbone.encoder("cuda")(pixels.cuda())
    torch.testing.assert_close(features.cpu(), backbone.encoder("cpu")(pixels), atol=1e-3, rtol=1e-3)
    assert {tensor.device.type for tensor in backbone.parameters()} == {"cpu"}


@pytest.mark.parametrize(("frozen", "sha256"), [(True, None), (False, "a" * 64)])
def test_weights_that_are_in_no_file_are_hashed(frozen: bool, sha256: str | None) -> None:
    backbone = make(frozen, sha256)
    before = backbone.fingerprint()
    assert before == make(frozen, sha256).fingerprint()
    with torch.no_grad():
        backbone.network.layers[0].weight[0, 0, 0, 0] += 1
    assert backbone.fingerprint() != before


def test_hashes(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"def")
    a, b = hashlib.sha256(b"abc"), hashlib.sha256(b"def")
    assert file_sha256(tmp_path / "a") == a.hexdigest()
    assert file_sha256(tmp_path / "a", tmp_path / "b") == hashlib.sha256(a.digest() + b.digest()).hexdigest()
    state = {"x": torch.tensor([1.0, 2.0]), "y": torch.tensor(3, dtype=torch.bfloat16)}
    assert state_sha256(state) == state_sha256(dict(reversed(state.items())))
    assert state_sha256(state) != state_sha256({**state, "x": state["x"].view(2, 1)})
    assert state_sha256(state) != state_sha256({**state, "y": state["y"].half()})


def test_check_state() -> None:
    a, b, c = torch.zeros(1), torch.zeros(2), torch.zeros(2)
    check_state({"a": a}, {"a": a}, "file")
    with pytest.raises(UserError, match="file lacks tensor 'b'"):
        check_state({"a": a}, {"a": a, "b": b}, "file")
    with pytest.raises(UserError, match="file has an unknown tensor 'b' and 1 more"):
        check_state({"a": a, "b": b, "c": c}, {"a": a}, "file")
    with pytest.raises(UserError, match=r"file: tensor 'a' has shape \(1,\), the model's is \(1, 2\)"):
        check_state({"a": a}, {"a": torch.zeros(1, 2)}, "file")


def test_records_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make(True).preprocessing.size = 3  # type: ignore[misc]


def test_processes_of_torchrun_hash_large_files_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large").write_bytes(b"weights")
    expected, hashed, sha256 = file_sha256(tmp_path / "large"), [], checksums.hashlib.sha256

    class Counted:
        def __init__(self, *data: bytes) -> None:
            self._digest = sha256(*data)

        def update(self, block: bytes) -> None:
            hashed.append(block)
            self._digest.update(block)

        def hexdigest(self) -> str:
            return self._digest.hexdigest()

    monkeypatch.setattr(checksums.hashlib, "sha256", Counted)
    monkeypatch.setattr(checksums, "SHARED", 1, raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert [file_sha256(tmp_path / "large") for _ in range(2)] == [expected] * 2 and len(hashed) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")  # all with one parent, torchrun
    assert [file_sha256(tmp_path / "large") for _ in range(8)] == [expected] * 8 and len(hashed) == 3
    (tmp_path / "large").write_bytes(b"other weights")
    assert file_sha256(tmp_path / "large") == sha256(b"other weights").hexdigest()
    (tmp_path / f"lamzoo-{os.getuid()}").chmod(0o777)  # another user could leave a note there
    assert file_sha256(tmp_path / "large") == sha256(b"other weights").hexdigest() and len(hashed) == 5
