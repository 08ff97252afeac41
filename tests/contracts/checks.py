"""The checks of `tests.contracts`. Each raises an AssertionError that names the violation."""

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from backbones.base import Backbone
from benchmarks.video.detectors.base import Detector
from heads.base import Head, Window
from registry import BACKBONES, DETECTORS, HEADS

# Heads that take the features of one backbone only, so that their contract is checked with no other number of features.
FIXED_FEATURES = {"anatomical"}


def uniform(name: str, shape: tuple[int, ...], salt: int = 0) -> np.ndarray:
    """Return numbers in [-1, 1) that depend on a name; the formula for the weights of the golden cases."""
    seed = 0
    for character in name:
        seed = (seed * 31 + ord(character)) % 1000003
    seed += salt
    i = np.arange(np.prod(shape), dtype=np.uint64)
    x = (i + np.uint64(1)) * np.uint64(6364136223846793005) + np.uint64(seed * 1442695040888963407 % 2**64)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    return ((x >> np.uint64(11)).astype(np.float64) / 2**53 * 2 - 1).reshape(shape)


def golden_tensor(name: str, shape: tuple[int, ...], salt: int = 0) -> Tensor:
    """Return a parameter or buffer of the golden cases by its published name."""
    last = name.rpartition(".")[2]
    if last == "num_batches_tracked":
        return torch.tensor(0)
    u = uniform(name, shape, salt)
    if last == "running_var":
        u = 1 + 0.5 * np.abs(u)
    elif last == "running_mean" or last.startswith("bias") or last.endswith("_bias"):
        u = 0.1 * u
    elif len(shape) == 1:
        u = 1 + 0.1 * u
    else:
        u = u * (3 / np.prod(shape[1:])) ** 0.5
    return torch.from_numpy(u).float()


# Made-up priors for built-in heads, by batch size.
PRIORS: dict[str, Callable[[int], Tensor]] = {
    "head_pose_bins": lambda batch: ((_tensor("head_pose_bins", batch, 3) + 1) * 45).long(),
    "landmarks": lambda batch: _tensor("landmarks", batch, 15),
}


def made_up_inputs(head: Head, batch: int) -> dict[str, Any]:
    """Return made-up values for the fields of `Window` that a head needs besides the features."""
    inputs: dict[str, Any] = {}
    if head.map_channels is not None:
        inputs["centre_map"] = _tensor("centre_map", batch, head.map_channels, 7, 7)
    if head.needs_priors:
        inputs["priors"] = {name: PRIORS[name](batch) for name in head.needs_priors}
    return inputs


def _tensor(name: str, *shape: int) -> Tensor:
    return torch.from_numpy(uniform(name, shape)).float()


def check_head(config: Mapping[str, Any], feature_dim: int = 12, window: int = 7, **inputs: Any) -> None:
    """Build a head and check it against the contract of `heads.base.Head`.

    Args:
        config: ``dict(type=NAME, **arguments)`` of a small head.
        feature_dim: D of the made-up features.
        window: T.
        **inputs: further fields of `Window` for batches of five, such as custom ``priors``. By default, values for
            the priors of built-in heads are made up.
    """
    parameters = inspect.signature(HEADS.get(config["type"])).parameters
    for name, parameter in parameters.items():
        assert parameter.annotation is not parameter.empty, f"argument {name} has no type"
        assert name == "feature_dim" or parameter.default is not parameter.empty, f"argument {name} has no default"

    def build() -> Head:
        torch.manual_seed(0)
        return HEADS.build({"feature_dim": feature_dim, "window": window, **config})

    head = build()
    assert isinstance(head, Head)
    assert (head.feature_dim, head.window) == (feature_dim, window)
    assert all(
        torch.equal(a, b) for a, b in zip(head.state_dict().values(), build().state_dict().values(), strict=True)
    ), "the same seed gives different weights"

    inputs = inputs or made_up_inputs(head, 5)
    features, present = _tensor("features", 5, window, feature_dim), torch.ones(5, window, dtype=torch.bool)
    present[0, 0] = present[1, -1] = present[1, 1] = False
    present[2] = False
    present[2, window // 2] = True  # no neighbour at all
    present[3] = False  # not even the key frame: its image is missing
    if hasattr(head, "fit"):
        many = Window(_tensor("fit", 64, window, feature_dim), torch.ones(64, window, dtype=torch.bool))
        head.fit(many, (many.features[:, window // 2, 0] > 0).long(), torch.tensor([0.5, 0.5]))
    head.eval()
    with torch.no_grad():
        logits = head(Window(features, present, **inputs))
        assert logits.shape == (5, 2), f"logits have shape {tuple(logits.shape)}"
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all(), "absent frames give logits that are not finite"
        assert torch.equal(logits, head(Window(features, present, **inputs))), "evaluation is not deterministic"

        garbage = torch.where(present[..., None], features, torch.full_like(features, float("nan")))
        torch.testing.assert_close(head(Window(garbage, present, **inputs)), logits, msg="absent frames have an effect")
        changed = features.clone()
        changed[4, window // 2] += 1
        assert not torch.allclose(head(Window(changed, present, **inputs))[4], logits[4]), "the key frame has no effect"
        torch.testing.assert_close(
            head(Window(changed, present, **inputs))[:4], logits[:4], msg="windows of a batch influence each other"
        )
        one = {name: _first(value) for name, value in inputs.items()}
        torch.testing.assert_close(
            head(Window(features[:1], present[:1], **one)),
            logits[:1],
            atol=1e-5,
            rtol=1e-4,
            msg="a batch of one differs",
        )
    assert present[2].sum() == 1, "the head changed its input"
    assert not present[3].any(), "the head changed its input"

    other = build()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(head.state_dict())
    with torch.no_grad():
        assert torch.equal(other.eval()(Window(features, present, **inputs)), logits), "state dict does not round-trip"

    head.train()
    head(Window(features, torch.ones_like(present), **inputs)).square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), f"no gradient reaches {name}"


def _first(value: Any) -> Any:
    return {key: tensor[:1] for key, tensor in value.items()} if isinstance(value, dict) else value[:1]


def check_backbone(config: Mapping[str, Any], pictures: Sequence[Image.Image] | None = None) -> None:
    """Build a frozen backbone and check it against the contract of `backbones.base.Backbone`.

    Args:
        config: ``dict(type=NAME, **arguments)``.
        pictures: two that must have different features. By default noise and its negative; give two faces to a backbone
            that measures faces.
    """
    state = torch.random.get_rng_state()
    backbone = BACKBONES.build(config)
    assert torch.equal(state, torch.random.get_rng_state()), "building changes the global random state"
    assert isinstance(backbone, Backbone)

    preprocessing = backbone.preprocessing
    if pictures is None:
        noise = ((uniform("picture", (70, 50, 3)) + 1) * 127).astype(np.uint8)
        pictures = [Image.fromarray(noise), Image.fromarray(255 - noise)]
    crops = [preprocessing.resize_crop(picture) for picture in pictures]
    for pixels in crops:
        assert (pixels.shape, pixels.dtype) == ((preprocessing.size, preprocessing.size, 3), np.uint8)
    both = torch.from_numpy(np.stack(crops))
    images = preprocessing.normalise(both)

    before = copy.deepcopy(backbone.state_dict())
    backbone.train()
    assert backbone.frozen
    assert not any(module.training for module in backbone.modules()), "train() unfreezes a frozen backbone"
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    # A training step of a head on top must not change any parameter or buffer.
    head = nn.Linear(backbone.feature_dim, 2)
    features = backbone(images)
    assert features.shape == (2, backbone.feature_dim)
    assert torch.isfinite(features).all()
    assert not torch.equal(features[0], features[1]), "different images have equal features"
    if backbone.reframes:
        moves = backbone.reframe(features)
        assert moves.shape == (2, 4)
        assert torch.isfinite(moves).all()
        assert torch.equal(backbone.reframe(features[1:]), moves[1:]), "reframe depends on the batch"
    head(features.float()).sum().backward()
    torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=1.0).step()
    assert before.keys() == backbone.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items()), (
        "training changed the weights"
    )
    with torch.no_grad():
        torch.testing.assert_close(backbone(images[:1]), features[:1], atol=1e-4, rtol=1e-3)
    encode = backbone.encoder("cpu")
    torch.testing.assert_close(encode(both), features.detach(), atol=1e-4, rtol=1e-3)
    assert torch.equal(encode(both[1:])[0], encode(both)[1]), "features depend on the other images in the batch"

    fingerprint = backbone.fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint, "the fingerprint is not JSON"
    again = BACKBONES.build(config)
    assert again.fingerprint() == fingerprint, "two builds have different fingerprints"
    assert backbone.fingerprint("bfloat16") != fingerprint, "the fingerprint does not contain the dtype"
    with torch.no_grad():
        assert torch.equal(again(images), backbone(images)), "two builds give different features"


def check_detector(config: Mapping[str, Any]) -> None:
    """Build a detector and check it against the contract of `benchmarks.video.detectors.base.Detector`.

    Args:
        config: ``dict(type=NAME, **arguments)``.
    """
    parameters = inspect.signature(DETECTORS.get(config["type"])).parameters
    for name, parameter in parameters.items():
        assert parameter.annotation is not parameter.empty, f"argument {name} has no type"
        assert parameter.default is not parameter.empty, f"argument {name} has no default"
    detector = DETECTORS.build(config)
    assert isinstance(detector, Detector)
    assert detector.side is None or detector.side > 0
    noise = ((uniform("picture", (90, 150, 3)) + 1) * 127).astype(np.uint8)
    pictures = [noise, np.zeros((64, 64, 3), np.uint8), noise[:33, :47], np.ascontiguousarray(noise.transpose(1, 0, 2))]
    for picture in pictures:
        before = picture.copy()
        boxes, scores = detector.detect(picture)
        assert (boxes.shape, boxes.dtype) == ((len(scores), 4), np.float64), f"boxes are {boxes.dtype} {boxes.shape}"
        assert (scores.shape, scores.dtype) == ((len(boxes),), np.float64), f"scores are {scores.dtype} {scores.shape}"
        assert ((scores >= 0) & (scores <= 1)).all(), "scores are outside [0, 1]"
        assert (boxes[:, 2:] > boxes[:, :2]).all(), "a box has no area"
        low, high = np.zeros(2), np.array(picture.shape[1::-1])
        assert (boxes[:, :2] >= low).all() and (boxes[:, 2:] <= high).all(), "a box extends beyond the picture"
        assert np.array_equal(picture, before), "the detector changed its input"
    again = DETECTORS.build(config)
    for picture in reversed(pictures):
        for one, other in zip(detector.detect(picture), again.detect(picture), strict=True):
            assert np.array_equal(one, other), "the output depends on earlier pictures"
    fingerprint = detector.fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint, "the fingerprint is not JSON"
    assert again.fingerprint() == fingerprint, "two builds have different fingerprints"
