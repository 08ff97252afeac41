"""GazeLSTM and GazePose, from pixels to logits, give the published programs' numbers, parameter for parameter."""

import json
from pathlib import Path

import pytest
import torch

from registry import UserError
from tests.contracts import golden_tensor, uniform
from zoo.model import LookingAtMeModel, read_model
from zoo.weights import write_weights

GOLDEN = {
    name: json.loads((Path(__file__).parents[1] / "golden" / f"{name}.json").read_text())
    for name in ("gazelstm", "gazepose")
}


def golden_head(name: str) -> dict:
    """Return the head's configuration from the golden file."""
    config = GOLDEN[name].get("config")
    if config is None:
        return {"type": name}
    return {
        "type": name,
        "width": config["dmodel"],
        "feed_forward": config["dim_feedforward"],
        "encoder_layers": config["num_encoder_layers"],
        "decoder_layers": config["num_decoder_layers"],
    }


def golden_state(name: str) -> dict[str, torch.Tensor]:
    golden = GOLDEN[name]
    return {key: golden_tensor(key, tuple(shape), golden["salt"]) for key, shape in golden["parameters"].items()}


def golden_inputs(name: str) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
    """Return normalised frames, and priors if the model takes any."""
    golden = GOLDEN[name]
    made = golden["input"].get("frames", golden["input"])
    frames = torch.from_numpy(uniform(made["name"], tuple(made["shape"]), golden["salt"])).float()
    names = [key for key in ("head_pose_bins", "landmarks") if key in golden["input"]]
    return frames, {key: torch.tensor(golden["input"][key]) for key in names} or None


def assert_golden_logits(model: LookingAtMeModel, name: str) -> None:
    frames, priors = golden_inputs(name)
    with torch.no_grad():
        logits = model(frames, torch.ones(frames.shape[:2], dtype=torch.bool), priors)
    torch.testing.assert_close(logits, torch.tensor(GOLDEN[name]["logits"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", GOLDEN)
def test_parameters_and_logits(name: str) -> None:
    model = LookingAtMeModel.build({"type": "gaze_resnet18"}, golden_head(name)).eval()
    published = {
        key.replace("backbone.network.", "base_model.").removeprefix("head."): key for key in model.state_dict()
    }
    found = {key: list(model.state_dict()[ours].shape) for key, ours in published.items()}
    assert found == GOLDEN[name]["parameters"]
    model.load_state_dict({published[key]: tensor for key, tensor in golden_state(name).items()})
    assert_golden_logits(model, name)


def test_the_head_gets_the_key_frames_map() -> None:
    """Each window has the map of its frame 3, even if earlier frames are absent."""
    model = LookingAtMeModel.build({"type": "gaze_resnet18"}, golden_head("gazepose")).eval()
    images = torch.from_numpy(uniform("images", (3, 7, 3, 64, 64))).float()
    present = torch.ones(3, 7, dtype=torch.bool)
    present[0, :2] = present[1, 3] = present[2, 4] = False
    with torch.no_grad():
        window = model.encode(images, present)
        for number in (0, 2):
            wanted = model.backbone.forward_map(images[number, 3][None])[1][0]
            torch.testing.assert_close(window.centre_map[number], wanted, atol=1e-4, rtol=1e-4)
        assert window.centre_map[1].eq(0).all()  # no key frame, no map
        torch.testing.assert_close(window.features[2, 6], model.backbone(images[2, 6][None])[0], atol=1e-4, rtol=1e-4)
    assert (
        LookingAtMeModel.build({"type": "gaze_resnet18"}, {"type": "gazelstm"}).encode(images, present).centre_map
        is None
    )


def test_missing_priors_and_maps_are_errors() -> None:
    model = LookingAtMeModel.build({"type": "gaze_resnet18"}, golden_head("gazepose"))
    frames = torch.zeros(1, 7, 3, 64, 64)
    with pytest.raises(UserError, match="needs the prior 'head_pose_bins'"):
        model(frames, torch.ones(1, 7, dtype=torch.bool))
    with pytest.raises(UserError, match=r"needs a feature map with 512 channels, the backbone \(none\) gives none"):
        LookingAtMeModel.build({"type": "tiny_means"}, golden_head("gazepose"))


def test_a_model_file_that_lacks_a_tensor(tmp_path: Path) -> None:
    model, path = LookingAtMeModel.build({"type": "gaze_resnet18"}, {"type": "gazelstm"}), tmp_path / "x.safetensors"
    about = {"backbone": {"type": "gaze_resnet18"}, "head": {"type": "gazelstm", "window": 7}}
    write_weights(path, model.state_dict(), about)
    assert read_model(path).state_dict().keys() == model.state_dict().keys()
    state = model.state_dict()
    del state["head.last_layer2.bias"]
    write_weights(path, state, about)
    with pytest.raises(UserError, match="x.safetensors lacks tensor 'head.last_layer2.bias'"):
        read_model(path)
    write_weights(path, model.head.state_dict(), {"head": about["head"]})
    with pytest.raises(UserError, match="x.safetensors are not those of a backbone and its head"):
        read_model(path)


def test_trunk_and_head_train_together() -> None:
    model = LookingAtMeModel.build({"type": "gaze_resnet18", "frozen": False}, golden_head("gazepose")).train()
    priors = {"head_pose_bins": torch.zeros(2, 3, dtype=torch.int64), "landmarks": torch.zeros(2, 15)}
    frames = torch.from_numpy(uniform("frames", (2, 7, 3, 64, 64))).float()
    model(frames, torch.ones(2, 7, dtype=torch.bool), priors).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert model.backbone.network.conv1.weight.grad.abs().sum() > 0
