"""The command line on PNGs and a checkpoint in OpenGVLab's format gives the golden features."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import bench
from backbones.base import IMAGENET_MEAN, IMAGENET_STD
from registry import BACKBONES

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="module", params=["6b", "300m"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, torch.Tensor]:
    """A checkpoint in two files with an index, the golden inputs as PNGs, and the golden features."""
    folder = tmp_path_factory.mktemp("checkpoint")
    file = GOLDEN / f"internvit_{request.param}_style.safetensors"
    with safe_open(file, "pt") as golden:
        config = {
            key: value if key == "norm_type" else json.loads(value.lower()) for key, value in golden.metadata().items()
        }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(file)
    state = {key[6:]: tensor for key, tensor in tensors.items() if key.startswith("state.")}
    places = {}
    for number, names in enumerate((sorted(state)[::2], sorted(state)[1::2]), start=1):
        name = f"model-{number:05d}-of-00002.safetensors"
        save_file({key: state[key] for key in names}, folder / name, {"format": "pt"})
        places |= dict.fromkeys(names, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))

    crops = tmp_path_factory.mktemp("crops")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    for number, pixels in enumerate(tensors["input.pixel_values"] * std + mean):
        levels = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        (crops / "clip").mkdir(exist_ok=True)
        Image.fromarray(levels).save(crops / "clip" / f"{number}.png")
    return folder, crops, tensors["output.pooled"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_golden_features_through_the_command_line(case: tuple, tmp_path: Path, dtype: str) -> None:
    folder, crops, golden = case
    out = tmp_path / "store"
    line = ["extract", "--images", str(crops), "--backbone", f"internvit:{folder}", "-o", str(out), "--device", "cpu"]
    assert bench.main([*line, "--dtype", dtype]) == 0
    with safe_open(out / "original" / "clip.safetensors", "pt") as file:
        assert json.loads(file.metadata()["keys"]) == ["clip/0.png", "clip/1.png"]
        found = file.get_tensor("features")
    assert str(found.dtype) == f"torch.{dtype}"
    assert json.loads((out / "manifest.json").read_text())["fingerprint"]["dtype"] == dtype
    # The golden input is not quantised: rounding it to 256 levels changes the features by about 1 %.
    assert torch.cosine_similarity(found.float(), golden).min() > 0.9995
    # On the rounded input the features match the golden network's to the last digits.
    pixels = np.stack([np.asarray(Image.open(crops / "clip" / f"{number}.png")) for number in range(2)])
    normalised = (pixels / 255 - IMAGENET_MEAN) / np.array(IMAGENET_STD)
    with torch.no_grad():
        exact = BACKBONES.build({"type": f"internvit:{folder}"}).float()(
            torch.from_numpy(normalised).float().permute(0, 3, 1, 2)
        )
    torch.testing.assert_close(found.float(), exact, atol=1e-4 if dtype == "float32" else 0.1, rtol=0)


def test_a_store_of_one_dtype_takes_no_other(case: tuple, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, crops, _ = case
    line = [
        "extract",
        "--images",
        str(crops),
        "--backbone",
        f"internvit:{folder}",
        "-o",
        str(tmp_path / "s"),
        "--device",
        "cpu",
    ]
    assert bench.main(line) == 0
    before = (tmp_path / "s" / "original" / "clip.safetensors").read_bytes()
    assert bench.main([*line, "--dtype", "bfloat16"]) == 2
    assert "holds features of another backbone, weights, preprocessing or dtype" in capsys.readouterr().err
    assert (tmp_path / "s" / "original" / "clip.safetensors").read_bytes() == before
