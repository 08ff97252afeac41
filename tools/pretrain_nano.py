"""Pretrain the small InternViT on renders: the network learns what the renderer knew when it drew a face.

    python -m tools.synthlam pretraining --count 60000 --seed 1 --out RENDERS
    python -m tools.pretrain_nano --renders RENDERS --out zoo/weights/internvit_nano --minutes 50

The task is inverse graphics. From one crop the network regresses the renderer's own parameters: the head's yaw, pitch
and roll, each eye's rotation inside the head, how far lids and jaw are open, brows and smile, five landmarks, and the
crop's size in pixels. It is neither the benchmark's label (looking at the camera or not) nor the angle between gaze and
camera: a backbone that had seen those would hand the answer to every head, and what a head makes of a window could no
longer be compared. InternViT-6B never saw the label either; what it brings is a general description of the face, and
this task is the nearest thing that can be had from rendered faces alone. Head and eyes stay apart in it: putting them
together is left to the head that is benchmarked.

The people in these renders occur in no split of SynthLAM. One shard in twenty is held out, and shards share no people.
The targets are read off the CLS token by one linear layer that is thrown away afterwards, because the heads see that
token and nothing else.

Three things let a transformer find the eyes, a dozen pixels wide, in under an hour on two cores; without them it had
learnt heads but not eyes after 100,000 crops, although a small convolutional network reads gaze off cut-out eyes after
8,000. The patch embedding begins as a whitening of patches. The patches where the eyes are have a readout of their own.
And training begins with the eyes enlarged and at one place, and lets go of them until faces are framed as they come.

Time, not epochs, sets the schedule: a run on a busy machine ends when it was meant to.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from backbones.base import Preprocessing
from backbones.internvit import NANO_FOLDER
from backbones.internvit_network import InternViTNetwork
from registry import UserError
from tools.synthlam.geometry import direction, rotation
from tools.synthlam.pretraining import PRETRAINING_TARGETS
from zoo.cards import FOLDER as CARDS
from zoo.files.atomic import write_json
from zoo.weights import write_weights

CONFIG: dict[str, Any] = {
    "architectures": ["InternVisionModel"],
    "model_type": "intern_vit_6b",
    "hidden_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "image_size": 112,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": False,
    "qk_normalization": True,
    "norm_type": "rms_norm",
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
}
SIDE = CONFIG["image_size"] // CONFIG["patch_size"]  # patches a side
# A crop shows the whole head with its hair; the middle three quarters hold the face, and the eyes are what is small.
PREPROCESSING = Preprocessing(size=CONFIG["image_size"], resize=144)
NAMES = tuple(PRETRAINING_TARGETS)
LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
EYES = ("left_eye_yaw", "left_eye_pitch", "right_eye_yaw", "right_eye_pitch")
ALIGNED_AT, ALIGNED_SCALE = (0.0, -0.15), 0.8  # where the eyes are put, in [-1, 1], and how much of the crop is shown
ALIGNED_UNTIL = 0.6  # of the training
EYE_WEIGHT = 4.0  # the eyes are a hundredth of the pixels, and without them there is no gaze
HELD_OUT = 20  # one shard in so many
BATCH, LEARNING_RATE, WEIGHT_DECAY, WARM_UP, DECAY = 64, 1e-3, 0.05, 0.03, 0.999


# -- data ---------------------------------------------------------------------------------------------------------


@dataclass
class Renders:
    """Crops as the backbone sees them, and what is true about each.

    Attributes:
        images: ``(N, S, S, 3)`` uint8.
        targets: ``(N, len(NAMES))`` float32; angles in radians, landmarks in units of the square crop.
    """

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)


def load_shard(path: Path, preprocessing: Preprocessing, share: slice = slice(None)) -> Renders:
    """Read one shard of renders, or a share of its rows, resized and cropped as the backbone will do it."""
    with np.load(path) as shard:
        if tuple(shard["names"]) != NAMES:
            raise UserError(f"{path} has other targets than this program knows: {', '.join(shard['names'])}")
        targets = shard["targets"].astype(np.float32)[share]
        offsets, data = shard["offsets"], shard["jpeg"].tobytes()
    images = np.empty((len(targets), preprocessing.size, preprocessing.size, 3), np.uint8)
    for row, (start, end) in enumerate(zip(offsets[:-1][share], offsets[1:][share], strict=True)):
        image = Image.open(BytesIO(data[start:end]))
        images[row] = preprocessing.resize_crop(image)
        shown = min(image.size) * preprocessing.size / preprocessing.resize  # pixels of each side in the middle
        for axis, length in (("x", image.width), ("y", image.height)):
            columns = [NAMES.index(f"{landmark}_{axis}") for landmark in LANDMARKS]
            targets[row, columns] = (targets[row, columns] - 0.5) * length / shown + 0.5
    return Renders(torch.from_numpy(images), torch.from_numpy(targets))


def load_renders(
    folder: Path, preprocessing: Preprocessing, known: set[str], held_out: bool, share: slice = slice(None)
) -> Renders | None:
    """Read the shards that are not ``known`` yet, and remember them there; None where there is none.

    Args:
        folder: what `tools.synthlam.__main__ pretraining` wrote, or is still writing.
        preprocessing: the backbone's.
        known: names of the shards read so far.
        held_out: read the held-out shards, else the others.
        share: the rows of each shard that are wanted.
    """
    parts = []
    for path in sorted(folder.glob("shard_?????.npz")):
        if path.name not in known and (int(path.stem[6:]) % HELD_OUT == 0) == held_out:
            parts.append(load_shard(path, preprocessing, share))
            known.add(path.name)
    if not parts:
        return None
    return together(parts)


def together(parts: list[Renders]) -> Renders:
    """The crops of all parts, each of which leaves the list when it is copied: so memory need not hold all twice."""
    count, targets = sum(map(len, parts)), torch.cat([part.targets for part in parts])
    images = torch.empty((count, *parts[0].images.shape[1:]), dtype=torch.uint8)
    end = 0
    while parts:
        part = parts.pop(0)
        start, end = end, end + len(part)
        images[start:end] = part.images
    return Renders(images, targets)


def mirror_targets(targets: Tensor) -> Tensor:
    """Return what is true about the mirrored images: left is right, and angles about vertical axes change sign."""
    mirrored = targets.clone()
    for column, name in enumerate(NAMES):
        other = name
        if name.startswith("left_"):
            other = "right_" + name.removeprefix("left_")
        elif name.startswith("right_"):
            other = "left_" + name.removeprefix("right_")
        value = targets[:, NAMES.index(other)]
        if name.endswith(("yaw", "roll")):
            value = -value
        elif name.endswith("_x"):
            value = 1 - value
        mirrored[:, column] = value
    return mirrored


def augment(images: Tensor, targets: Tensor, generator: torch.Generator, aligned: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mirror, move and scale, and change colours; the targets follow. Blur and noise are in the renders already.

    Args:
        images: ``(B, 3, S, S)`` in [0, 1].
        targets: ``(B, len(NAMES))``.
        generator: of all that is drawn.
        aligned: 1 puts the eyes, enlarged, at one place of the picture; 0 leaves faces as they are framed.

    Returns:
        The same shapes.
    """
    count, size = len(images), images.shape[-1]

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    flip = draw(count) < 0.5
    targets = torch.where(flip[:, None], mirror_targets(targets), targets)
    sign = torch.where(flip, -1.0, 1.0)

    # A third keep the exact framing. Output x in [-1, 1] is read at sign * (scale * x + shift).
    framed = (draw(count) < 2 / 3).float()
    scale = torch.exp((draw(count) * 2 - 1) * 0.12 * framed)
    shift = (draw(count, 2) * 2 - 1) * 0.12 * framed[:, None]
    if aligned:
        eyes = [[NAMES.index(f"{side}_eye_{axis}") for side in ("left", "right")] for axis in "xy"]
        between = targets[:, eyes].mean(2).clamp(0.2, 0.8) * 2 - 1  # (B, 2), in [-1, 1]
        scale = (1 - aligned) * scale + aligned * ALIGNED_SCALE * scale
        at = between - scale[:, None] * torch.tensor(ALIGNED_AT)
        shift = (1 - aligned) * shift + aligned * (at + 0.2 * shift)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = scale * sign, shift[:, 0] * sign
    theta[:, 1, 1], theta[:, 1, 2] = scale, shift[:, 1]
    grid = functional.affine_grid(theta, [count, 3, size, size], align_corners=False)
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    targets = targets.clone()
    for axis, offset in (("x", shift[:, :1]), ("y", shift[:, 1:])):
        columns = [NAMES.index(f"{landmark}_{axis}") for landmark in LANDMARKS]
        targets[:, columns] = ((targets[:, columns] * 2 - 1 - offset) / scale[:, None] + 1) / 2
    targets[:, NAMES.index("log_size")] += scale.log()  # fewer of the crop's pixels are left

    gain = torch.exp((draw(count, 1, 1, 1) * 2 - 1) * 0.3 + (draw(count, 3, 1, 1) * 2 - 1) * 0.08)
    contrast = torch.exp((draw(count, 1, 1, 1) * 2 - 1) * 0.25)
    mean = images.mean((1, 2, 3), keepdim=True)
    return (((images - mean) * contrast + mean) * gain).clamp_(0, 1), targets


# -- network ------------------------------------------------------------------------------------------------------


def sine_positions(side: int, width: int) -> Tensor:
    """Return ``(1, 1 + side**2, width)`` position embeddings to begin with: sines of row and column, zero for CLS.

    Embeddings that know their neighbours from the first step save a good part of a short training (Beyer et al. 2022,
    "Better plain ViT baselines for ImageNet-1k").
    """
    frequency = 1 / 10000 ** (torch.arange(width // 4) / (width // 4 - 1))
    angle = torch.arange(side)[:, None] * frequency
    waves = torch.cat([angle.sin(), angle.cos()], 1)  # (side, width / 2)
    rows, columns = waves[:, None].expand(side, side, -1), waves[None].expand(side, side, -1)
    return torch.cat([torch.zeros(1, width), torch.cat([rows, columns], 2).flatten(0, 1)])[None]


@torch.no_grad()
def whiten_patches(network: Any, images: Tensor, floor: float = 0.03) -> None:
    """Begin with a patch embedding whose outputs are uncorrelated and of like size on ``images (N, 3, S, S)``.

    An iris that moves by a pixel is a ten-thousandth of a patch's variance, brightness is nine tenths of it. Started
    from random directions, the network sees brightness for its first hundred thousand crops. (The idea is that of the
    whitening layer in Page's and Jordan's fast CIFAR-10 trainings.)

    Args:
        network: whose patch embedding is set.
        images: normalised.
        floor: variance below which a direction counts as noise and is not blown up to full size.
    """
    projection = network.embeddings.patch_embedding
    size = projection.kernel_size[0]
    patches = functional.unfold(images, size, stride=size).transpose(1, 2).flatten(0, 1).double()
    mean = patches.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov(patches.T))
    kept = slice(-projection.out_channels, None)  # in ascending order
    weight = (directions[:, kept] / (variances[kept] + floor).sqrt()).T
    projection.weight.copy_(weight.reshape(projection.weight.shape))
    projection.bias.copy_(-weight @ mean)


class Regressor(nn.Module):
    """The backbone's network, and linear layers from its last hidden state to standardised targets.

    ``readout`` reads everything off the CLS token. ``local`` reads the eyes' angles off the patches where the eyes are:
    told where to look, the patches learn eyes long before the CLS token would have found them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = InternViTNetwork(CONFIG)
        for name, parameter in self.network.named_parameters():
            if parameter.ndim > 1 and "embeddings" not in name:
                for part in parameter.data.chunk(3) if ".qkv." in name else [parameter]:
                    nn.init.xavier_uniform_(part)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif name.endswith((".ls1", ".ls2")):
                nn.init.ones_(parameter)  # InternViT's 0.1 is for 45 layers
        embeddings = self.network.embeddings
        nn.init.trunc_normal_(embeddings.class_embedding, std=0.02)
        embeddings.position_embedding.data.copy_(sine_positions(SIDE, CONFIG["hidden_size"]))
        self.readout = nn.Linear(CONFIG["hidden_size"], len(mean))
        self.local = nn.Linear(CONFIG["hidden_size"], len(EYES))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return standardised predictions for normalised ``images (B, 3, S, S)``.

        Returns:
            ``(B, len(NAMES))`` from the CLS token and ``(B, patches, len(EYES))`` from the patches.
        """
        hidden = self.network.tokens(images)
        return self.readout(hidden[:, 0]), self.local(hidden[:, 1:])

    def loss(self, images: Tensor, targets: Tensor, forward: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """Return the Huber loss (quadratic up to a third of a standard deviation) of CLS token and eyes' patches.

        Args:
            images: ``(B, 3, S, S)`` normalised.
            targets: ``(B, len(NAMES))``.
            forward: this module, or a compiled version of it.
        """
        with torch.autocast("cpu", torch.bfloat16):
            everything, local = forward(images)
        wanted = (targets - self.mean) / self.std
        columns = [NAMES.index(name) for name in EYES]
        # Where an eye is three pixels wide there is nothing to be learnt about it.
        detail = (targets[:, NAMES.index("log_size")].exp() / 60).clamp(max=2)[:, None]
        weights = torch.ones_like(wanted)
        weights[:, columns] = EYE_WEIGHT * detail
        loss = (huber(everything, wanted) * weights).mean()
        eyes = wanted[:, columns]
        for eye in ("left_eye", "right_eye"):
            at = targets[:, [NAMES.index(f"{eye}_x"), NAMES.index(f"{eye}_y")]]
            inside = ((at >= 0) & (at < 1)).all(1)
            column, row = (at[inside] * SIDE).long().unbind(1)
            loss = loss + (huber(local[inside, row * SIDE + column], eyes[inside]) * detail[inside]).mean()
        return loss


def huber(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Return the loss of each number."""
    return functional.huber_loss(predicted.float(), wanted, reduction="none", delta=1 / 3)


def rate(progress: float) -> float:
    """Return the learning rate at ``progress`` in [0, 1]: linear warm-up, then cosine to zero."""
    if progress < WARM_UP:
        return LEARNING_RATE * progress / WARM_UP
    return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))


# -- evaluation ---------------------------------------------------------------------------------------------------


@torch.inference_mode()
def encode(model: Regressor, images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return the CLS tokens ``(N, D)`` of ``images (N, S, S, 3)`` uint8, in float32."""
    return torch.cat([model.network(preprocessing.normalise(batch)) for batch in images.split(256)])


def gaze_directions(targets: np.ndarray) -> np.ndarray:
    """Return unit vectors ``(N, 3)`` of where both eyes together look, seen from the camera."""
    column = {name: targets[:, index] for index, name in enumerate(NAMES)}
    yaw = (column["left_eye_yaw"] + column["right_eye_yaw"]) / 2
    pitch = (column["left_eye_pitch"] + column["right_eye_pitch"]) / 2
    heads = np.stack([rotation(*angles) for angles in targets[:, :3]])
    return np.einsum("nij,nj->ni", heads, direction(yaw, pitch))


def errors_of(predicted: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """Return the median error of each target, in degrees, in units of the crop or in the target's own units."""
    report: dict[str, Any] = {}
    spread = np.median(np.abs(targets - np.median(targets, 0)), 0)
    for index, name in enumerate(NAMES):
        error = np.abs(predicted[:, index] - targets[:, index])
        unit = 180 / math.pi if name.endswith(("yaw", "pitch", "roll")) else 1.0
        residual = ((predicted[:, index] - targets[:, index]) ** 2).mean() / max(targets[:, index].var(), 1e-12)
        report[name] = {
            "median_error": round(float(np.median(error) * unit), 4),
            "median_error_of_guessing": round(float(spread[index] * unit), 4),
            "r2": round(float(1 - residual), 4),
        }
    gaze = gaze_directions(targets)

    def gaze_errors(guess: np.ndarray) -> np.ndarray:
        return np.degrees(np.arccos((gaze_directions(guess) * gaze).sum(1).clip(-1, 1)))

    angle = gaze_errors(predicted)
    guessed = gaze_errors(np.broadcast_to(np.median(targets, 0), targets.shape))
    size = np.exp(targets[:, NAMES.index("log_size")])
    report["gaze_degrees"] = {
        "median_error": round(float(np.median(angle)), 3),
        "median_error_of_guessing": round(float(np.median(guessed)), 3),
    }
    for low, high in ((0, 40), (40, 70), (70, 1000)):
        chosen = (size >= low) & (size < high)
        if chosen.any():
            key = f"median_error_{low}_to_{high}_px" if high < 1000 else f"median_error_from_{low}_px"
            report["gaze_degrees"][key] = round(float(np.median(angle[chosen])), 3)
    return report


def linear_probe(features: np.ndarray, targets: np.ndarray, groups: int = 2) -> np.ndarray:
    """Predict ``targets`` from ``features`` by ridge regression, each part from the others; parts are contiguous.

    Renders of one person stand side by side, so contiguous parts share at most one person.
    """
    x = (features - features.mean(0)) / (features.std(0) + 1e-6)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    predicted = np.empty_like(targets)
    part = np.arange(len(x)) * groups // len(x)
    for group in range(groups):
        a, b = x[part != group], targets[part != group]
        predicted[part == group] = x[part == group] @ np.linalg.solve(a.T @ a + 1.0 * np.eye(a.shape[1]), a.T @ b)
    return predicted


# -- training -----------------------------------------------------------------------------------------------------


def batches(count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield row numbers of one epoch in random order, in full batches."""
    order = torch.randperm(count, generator=generator)
    yield from order[: count - count % BATCH].split(BATCH) if count >= BATCH else [order]


class Average:
    """Running average of a model's state, which is what is shipped."""

    def __init__(self, model: nn.Module) -> None:
        self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards ``model``; the first steps count for more."""
        self.steps += 1
        share = 1 - min(DECAY, (1 + self.steps) / (10 + self.steps))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, share)
            else:  # a count
                self.state[name].copy_(tensor)


def pretrain(renders: Path, out: Path, minutes: float, seed: int = 0, compiled: bool = True, every: float = 5) -> None:
    """Train, write the weights every few minutes, and report at the end.

    Args:
        renders: folder of shards; new ones are taken up between epochs.
        out: folder for ``config.json``, ``model.safetensors`` and ``pretraining.json``; ``training.pt`` beside them
            holds what is needed to go on, and is gone at the end.
        minutes: of training, earlier runs into the same folder counted in.
        seed: of weights, order and augmentation.
        compiled: compile the network; worth it beyond a minute.
        every: minutes between two reports.
    """
    preprocessing = PREPROCESSING
    known: set[str] = set()
    training = load_renders(renders, preprocessing, known, held_out=False)
    if training is None:
        raise UserError(f"{renders} holds no shard to train on; write some with `python -m tools.synthlam`")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Regressor(training.targets.mean(0), training.targets.std(0).clamp_min(1e-3))
    whiten_patches(model.network, preprocessing.normalise(training.images[:: max(1, len(training) // 1000)]))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        fused=True,
    )
    average = Average(model)
    spent, steps, seen = 0.0, 0, 0
    state_file = out / "training.pt"
    out.mkdir(parents=True, exist_ok=True)
    if state_file.is_file():
        saved = torch.load(state_file, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average.state, average.steps = saved["average"], saved["steps"]
        spent, steps, seen = saved["spent"], saved["steps"], saved["seen"]
    forward: Any = torch.compile(model) if compiled else model

    started, reported, losses = time.monotonic() - spent * 60, spent, []
    while spent < minutes:
        if (more := load_renders(renders, preprocessing, known, held_out=False)) is not None:
            training = together([training, more])
        for rows in batches(len(training), generator):
            images = training.images[rows].permute(0, 3, 1, 2).float() / 255
            aligned = max(0.0, 1 - spent / minutes / ALIGNED_UNTIL)
            images, targets = augment(images, training.targets[rows], generator, aligned)
            images = preprocessing.normalise((images * 255).permute(0, 2, 3, 1))
            for group in optimizer.param_groups:
                group["lr"] = rate(spent / minutes)
            with sdpa_kernel(SDPBackend.MATH):  # on a CPU, fused attention is the slower of the two in training
                loss = model.loss(images, targets, forward)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update(model)
            losses.append(loss.item())
            steps, seen, spent = steps + 1, seen + len(rows), (time.monotonic() - started) / 60
            if spent >= minutes:
                break
            if spent - reported >= every:
                report = write(average, out, renders, preprocessing, {"minutes": spent, "steps": steps, "crops": seen})
                saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average.state}
                torch.save({**saved, "spent": spent, "steps": steps, "seen": seen}, state_file)
                summary = report.get("readout", {}).get("gaze_degrees")
                print(f"{spent:.1f} min, {seen} crops, loss {np.mean(losses):.4f}, gaze {summary}", flush=True)
                reported, losses = spent, []
    facts = {"minutes": spent, "steps": steps, "crops": seen, "distinct": len(training)}
    write(average, out, renders, preprocessing, facts)
    state_file.unlink(missing_ok=True)


def write(average: Average, out: Path, renders: Path, preprocessing: Preprocessing, facts: dict[str, Any]) -> dict:
    """Write the averaged network in the official format, and what it can do on people it has not seen."""
    model = Regressor(average.state["mean"], average.state["std"])
    model.load_state_dict(average.state)
    model.eval()
    write_json(out / "config.json", CONFIG)
    write_json(
        out / "preprocessor_config.json", {"size": preprocessing.resize, "crop_size": preprocessing.size, "resample": 3}
    )
    sha256 = write_weights(out / "model.safetensors", model.network.state_dict(), {"pretraining": facts})
    report: dict[str, Any] = {"sha256": sha256, "training": {k: round(v, 2) for k, v in facts.items()}}
    held_out = load_renders(renders, preprocessing, set(), held_out=True)
    if held_out is not None:
        features = encode(model, held_out.images, preprocessing)
        with torch.inference_mode():
            predicted = model.readout(features) * model.std + model.mean
        targets = held_out.targets.numpy()
        report["held_out_crops"] = len(held_out)
        report["readout"] = errors_of(predicted.numpy(), targets)
        report["linear_probe"] = errors_of(linear_probe(features.double().numpy(), targets.astype(np.float64)), targets)
    write_json(out / "pretraining.json", report)
    return report


def update_card(card: Path, report: dict[str, Any], weights: str = "internvit_nano/model.safetensors") -> None:
    """Put a report's hash and figures into the model's card; its words stay."""
    source = "zoo/weights/internvit_nano/pretraining.json"
    split = "held-out renders, people unseen in training"
    figures = []
    for target in ("gaze_degrees", "head_yaw", "head_pitch", "head_roll", *EYES):
        name = target.removesuffix("_degrees")
        for how, errors in (("training's readout", report["readout"]), ("linear probe", report["linear_probe"])):
            metric = f"{name}: median error of the {how}, degrees"
            figures.append((metric, errors[target]["median_error"]))
        guessing = report["readout"][target]["median_error_of_guessing"]
        figures.append((f"{name}: median error of guessing the median, degrees", guessing))
    data = json.loads(card.read_text())
    data["weights"] = [{"file": weights, "origin": "shipped", "sha256": report["sha256"], "licence": "Apache-2.0"}]
    data["figures"] = [{"metric": m, "value": v, "split": split, "source": source} for m, v in figures]
    write_json(card, data)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--renders", type=Path, required=True, help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--minutes", type=float, default=50, help="of training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        pretrain(arguments.renders, arguments.out, arguments.minutes, arguments.seed)
        if arguments.out.resolve() == NANO_FOLDER:
            update_card(CARDS / "internvit_nano.json", json.loads((NANO_FOLDER / "pretraining.json").read_text()))
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
