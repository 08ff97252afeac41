"""Train the small gaze network on renders, to be the backbone of the model that `predict` uses.

    python -m tools.make_synthlam pretraining --count 100000 --seed 1 --out RENDERS
    python -m tools.pretrain_gaze --renders RENDERS --out zoo/weights/gaze_nano --minutes 60

Unlike `pretrain_nano`, this training does know the question: how the eyes turn in the head, where the gaze goes as the
camera sees it, and whether it meets the camera. The network's purpose is to be right on a video, not to leave room for
heads to differ in. The people in the renders occur in no split of SynthLAM; one shard in twenty is held out.

The first stream learns what the renderer knew of the face, the eyes' places among it; the second sees the eyes cut out
there. In half of the training's crops it sees them cut out at their true place, moved by a pixel or so, so that it can
begin before the first stream has found them.

Time, not epochs, sets the schedule: a run on a busy machine ends when it was meant to.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn import functional

from backbones.gaze_nano import ANGLES, EYES, FOLDER, PREPROCESSING, GazeNetwork
from benchmarks.data.synthlam_scene import LOOKING_DEG
from registry import UserError
from tools.pretrain_nano import NAMES, Average, Renders, augment, batches, gaze_directions, huber, load_renders
from zoo.cards import FOLDER as CARDS
from zoo.files import write_json
from zoo.weights import write_weights

BATCH, LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 64, 2e-3, 0.05, 0.02
ASIDE = 0.015  # of the picture: how far from the eyes' true place they are cut out, standard deviation
COLUMNS = [NAMES.index(name) for name in ANGLES]
PLACES = [NAMES.index(name) for name in EYES]
SIZE = NAMES.index("log_size")
SIZES = ((0, 40), (40, 55), (55, 70), (70, 90), (90, 1000))  # pixels, of the report
NEAR_DEG = 20  # gazes that pass the camera within this angle are reported by themselves


def between_eyes(targets: Tensor) -> Tensor:
    """The point between the eyes ``(B, 2)``, x and y in [0, 1], of ``targets (B, len(NAMES))``."""
    places = targets[:, PLACES]
    return (places[:, :2] + places[:, 2:]) / 2


def gazes(targets: Tensor) -> Tensor:
    """Unit vectors ``(B, 3)`` of where the eyes look, seen from the camera; the third component is towards it."""
    return torch.from_numpy(gaze_directions(targets.numpy().astype(np.float64)).astype(np.float32))


def loss_of(network: GazeNetwork, images: Tensor, targets: Tensor, between: Tensor) -> Tensor:
    """The training's loss.

    Args:
        network: which learns.
        images: ``(B, 3, S, S)``, normalised.
        targets: ``(B, len(NAMES))``.
        between: ``(B, 2)`` where half of the eyes are cut out; the others are where the network sees them.

    Returns:
        Huber losses of what is known of the face and of the angles of the eyes, the negative logarithm of Laplace's
        density for the gaze, and cross entropy of looking.
    """
    half = len(images) // 2
    with torch.autocast("cpu", torch.bfloat16):
        told, seen = network.look(images[:half], between[:half]), network.look(images[half:])
        gaze, known = (torch.cat(parts).float() for parts in ((told[1], seen[1]), (told[2], seen[2])))
    wanted = (targets - network.mean) / network.std
    # Where an eye is three pixels wide there is little to be learnt about it.
    detail = (targets[:, SIZE].exp() / 60).clamp(max=2)[:, None]
    true = gazes(targets)
    spread = gaze[:, 6:8].clamp(-4, 1)
    at_camera = (true[:, 2] > math.cos(math.radians(LOOKING_DEG))).float()
    return (
        2 * huber(known, wanted).mean()
        + 4 * (huber(gaze[:, :4], wanted[:, COLUMNS]) * detail).mean()
        + 0.3 * ((gaze[:, 4:6] - true[:, :2]).abs() * (-spread).exp() + spread).mean()
        + functional.binary_cross_entropy_with_logits(gaze[:, 8], at_camera)
    )


def rate(progress: float) -> float:
    """The learning rate at ``progress`` in [0, 1]: linear warm-up, then cosine to zero."""
    if progress < WARM_UP:
        return LEARNING_RATE * progress / WARM_UP
    return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))


@torch.inference_mode()
def errors_of(network: GazeNetwork, held_out: Renders) -> dict[str, Any]:
    """What the network can do on people that it has not seen: degrees, and average precision of looking."""
    batches_ = [PREPROCESSING.normalise(batch) for batch in held_out.images.split(250)]
    parts = [network.look(batch) for batch in batches_]
    gaze, known = torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts])
    across = gaze[:, 4:6]
    towards = (1 - across.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
    found, true = functional.normalize(torch.cat([across, towards], 1)), gazes(held_out.targets)
    error = torch.rad2deg((found * true).sum(1).clamp(-1, 1).acos()).numpy()
    near = (true[:, 2] > math.cos(math.radians(NEAR_DEG))).numpy()
    looking = (true[:, 2] > math.cos(math.radians(LOOKING_DEG))).numpy()
    side = held_out.targets[:, SIZE].exp().numpy()
    aside = (between_eyes(known * network.std + network.mean) - between_eyes(held_out.targets)).norm(dim=1)
    report: dict[str, Any] = {
        "median_error_degrees": round(float(np.median(error)), 2),
        "eyes_found_within": round(float(aside.median()), 4),
        "by_size": {},
    }
    for low, high in SIZES:
        inside = (side >= low) & (side < high)
        if not inside.any():
            continue
        report["by_size"][f"{low} to {high} px" if high < 1000 else f"from {low} px"] = {
            "crops": int(inside.sum()),
            "median_error_degrees": round(float(np.median(error[inside])), 2),
            f"median_error_degrees_within_{NEAR_DEG}": round(float(np.median(error[inside & near])), 2),
            "AP_looking": round(float(average_precision_score(looking[inside], gaze[inside, 8].numpy())), 3),
            "share_looking": round(float(looking[inside].mean()), 3),
        }
    return report


def write(average: Average, out: Path, renders: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the averaged network and what it can do; returns the report."""
    network = GazeNetwork(NAMES)
    network.load_state_dict(average.state)
    network.eval()
    write_json(out / "config.json", {"names": [*NAMES]})
    sha256 = write_weights(out / "model.safetensors", network.state_dict(), {"pretraining": facts})
    report: dict[str, Any] = {"sha256": sha256, "training": {k: round(v, 2) for k, v in facts.items()}}
    held_out = load_renders(renders, PREPROCESSING, set(), held_out=True)
    if held_out is not None:
        report |= {"held_out_crops": len(held_out), **errors_of(network, held_out)}
    write_json(out / "pretraining.json", report)
    return report


def pretrain(renders: Path, out: Path, minutes: float, seed: int = 0, every: float = 5) -> None:
    """Train, and write weights and report every few minutes.

    Args:
        renders: folder of shards; new ones are taken up between epochs.
        out: folder for ``config.json``, ``model.safetensors`` and ``pretraining.json``.
        minutes: of training.
        seed: of weights, order and augmentation.
        every: minutes between two reports.
    """
    known: set[str] = set()
    training = load_renders(renders, PREPROCESSING, known, held_out=False)
    if training is None:
        raise UserError(f"{renders} holds no shard to train on; write some with `python -m tools.make_synthlam`")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = GazeNetwork(NAMES, training.targets.mean(0), training.targets.std(0).clamp_min(1e-3))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98), fused=True)
    average = Average(network)
    out.mkdir(parents=True, exist_ok=True)
    steps, seen, spent, reported, losses = 0, 0, 0.0, 0.0, []
    started = time.monotonic()
    while spent < minutes:
        if (more := load_renders(renders, PREPROCESSING, known, held_out=False)) is not None:
            training = Renders(torch.cat([training.images, more.images]), torch.cat([training.targets, more.targets]))
        for rows in batches(len(training), generator):
            for group in optimizer.param_groups:
                group["lr"] = rate(spent / minutes)
            images = training.images[rows].permute(0, 3, 1, 2).float() / 255
            images, targets = augment(images, training.targets[rows], generator)
            images = PREPROCESSING.normalise((images * 255).permute(0, 2, 3, 1))
            between = between_eyes(targets) + ASIDE * torch.randn(len(rows), 2, generator=generator)
            loss = loss_of(network, images.contiguous(memory_format=torch.channels_last), targets, between)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            average.update(network)
            losses.append(loss.item())
            steps, seen, spent = steps + 1, seen + len(rows), (time.monotonic() - started) / 60
            if spent >= minutes:
                break
            if spent - reported >= every:
                report = write(average, out, renders, {"minutes": spent, "steps": steps, "crops": seen})
                print(f"{spent:.1f} min, {seen} crops, loss {np.mean(losses):.4f}, {json.dumps(report)}", flush=True)
                reported, losses = spent, []
    write(average, out, renders, {"minutes": spent, "steps": steps, "crops": seen, "distinct": len(training)})


def update_card(card: Path, report: dict[str, Any]) -> None:
    """Put a report's hash and figures into the card; its words stay."""
    split, source = "held-out renders, people unseen in training", "zoo/weights/gaze_nano/pretraining.json"
    figures = [("gaze: median error, degrees", report["median_error_degrees"])]
    for size, errors in report["by_size"].items():
        figures.append((f"gaze: median error, degrees, faces of {size}", errors["median_error_degrees"]))
        share = f"{100 * errors['share_looking']:.0f} % looking"
        figures.append((f"AP looking, faces of {size}, {share}", errors["AP_looking"]))
    data = json.loads(card.read_text(encoding="utf-8"))
    data["weights"][0]["sha256"] = report["sha256"]
    data["figures"] = [{"metric": m, "value": v, "split": split, "source": source} for m, v in figures]
    write_json(card, data)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--renders", type=Path, required=True, help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--minutes", type=float, default=60, help="of training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        pretrain(arguments.renders, arguments.out, arguments.minutes, arguments.seed)
        if arguments.out.resolve() == FOLDER:
            update_card(CARDS / "gaze_nano.json", json.loads((FOLDER / "pretraining.json").read_text(encoding="utf-8")))
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
