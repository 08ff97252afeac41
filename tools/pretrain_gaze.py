r"""Train the small gaze network on renders, to be the backbone of the model that `predict` uses.

    python -m tools.synthlam pretraining --count 100000 --seed 1 --out RENDERS
    python -m tools.pretrain_gaze --renders RENDERS --out zoo/weights/gaze_nano --minutes 60

Faces in clips are turned, lit and blurred in other ways than those that are drawn one by one. To learn from them too,
and on all cores, from weights that there are already:

    python -m tools.synthlam clips --seed 2 --times 16 --every 5 --out CLIPS
    python -m torch.distributed.run --nproc-per-node 2 -m tools.pretrain_gaze --renders RENDERS --clips CLIPS \
        --weights DIR --out zoo/weights/gaze_nano --threads 1

Unlike `pretrain_nano`, this training does know the question: how the eyes turn in the head, where the gaze goes as the
camera sees it, and whether it meets the camera. The network's purpose is to be right on a video, not to leave room for
heads to differ in. The people in the renders occur in no split of SynthLAM; one shard in twenty is held out.

The first stream learns what the renderer knew of the face, the eyes' places among it; the second sees the eyes cut out
there. In half of the training's crops it sees them cut out at their true place, moved by a pixel or so, so that it can
begin before the first stream has found them.

How a detector's crops should lie is learnt last, from what the trained network says: `python -m tools.fit_framing`.

Time, not epochs, sets the schedule: a run on a busy machine ends when it was meant to.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from torch import Tensor, distributed, nn
from torch.nn import functional

from backbones.gaze_nano import ANGLES, EYES, FOLDER, PREPROCESSING, GazeNetwork
from benchmarks.data import synthlam
from registry import UserError
from tools.pretrain_nano import (
    NAMES,
    Average,
    Renders,
    augment,
    batches,
    gaze_directions,
    huber,
    load_renders,
    together,
)
from tools.synthlam.scene import LOOKING_DEG
from zoo.cards import FOLDER as CARDS
from zoo.files.atomic import write_json
from zoo.weights import write_weights

BATCH, LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 64, 2e-3, 0.05, 0.02
ASIDE = 0.015  # of the picture: how far from the eyes' true place they are cut out, standard deviation
COLUMNS = [NAMES.index(name) for name in ANGLES]
PLACES = [NAMES.index(name) for name in EYES]
SIZE = NAMES.index("log_size")
SIZES = ((0, 40), (40, 55), (55, 70), (70, 90), (90, 1000))  # pixels, of the report
HELD_OUT = {
    "held_out_renders": "held-out renders, people unseen in training",
    "held_out_clips": "rendered clips, people unseen in training",
}
NEAR_DEG = 20  # gazes that pass the camera within this angle are reported by themselves


def load_clips(root: Path, split: str, share: slice = slice(None)) -> Renders:
    """Crops of clips, with what their truth says; what it does not say is NaN.

    Args:
        root: a folder in SynthLAM's layout.
        split: of it.
        share: the rows of the split that are wanted.
    """
    truth = synthlam.truth(root)
    truth = truth[truth["split"] == split][share]
    images = np.stack([PREPROCESSING.resize_crop(Image.open(root / image)) for image in truth["image"]])
    vergence = np.degrees(np.arctan(0.031 / truth["distance"].clip(lower=0.4)))
    known = {
        "head_yaw": truth["head_yaw"],
        "head_pitch": truth["head_pitch"],
        "head_roll": truth["head_roll"],
        "left_eye_yaw": truth["eye_yaw"] - vergence,
        "left_eye_pitch": truth["eye_pitch"],
        "right_eye_yaw": truth["eye_yaw"] + vergence,
        "right_eye_pitch": truth["eye_pitch"],
    }
    targets = np.full((len(truth), len(NAMES)), np.nan, np.float32)
    for name, degrees in known.items():
        targets[:, NAMES.index(name)] = np.radians(degrees)
    targets[:, NAMES.index("eye_openness")] = 1 - truth["blink"]
    targets[:, SIZE] = np.log(truth[["width", "height"]].max(axis=1))
    return Renders(torch.from_numpy(images), torch.from_numpy(targets))


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
        targets: ``(B, len(NAMES))``; NaN is not known.
        between: ``(K, 2)`` where the eyes of the first K are cut out; of the others it is where the network sees them.

    Returns:
        Huber losses of what is known of the face and of the angles of the eyes, the negative logarithm of Laplace's
        density for the gaze, and cross entropy of looking.
    """
    with torch.autocast("cpu", torch.bfloat16):
        _, gaze, known = network.look(images, between)
    gaze, known = gaze.float(), known.float()
    wanted = (targets - network.mean) / network.std
    told = wanted.isfinite()
    # Where an eye is three pixels wide there is little to be learnt about it.
    detail = (targets[:, SIZE].exp() / 60).clamp(max=2)[:, None]
    true = gazes(targets)
    spread = gaze[:, 6:8].clamp(-4, 1)
    at_camera = (true[:, 2] > math.cos(math.radians(LOOKING_DEG))).float()
    return (
        2 * huber(known[told], wanted[told]).mean()
        + 4 * (huber(gaze[:, :4], wanted[:, COLUMNS]) * detail).mean()
        + 0.6 * ((gaze[:, 4:6] - true[:, :2]).abs() * (-spread).exp() + spread).mean()
        + functional.binary_cross_entropy_with_logits(gaze[:, 8], at_camera)
    )


def rate(progress: float, peak: float = LEARNING_RATE) -> float:
    """The learning rate at ``progress`` in [0, 1]: linear warm-up to the peak, then cosine to zero."""
    if progress < WARM_UP:
        return peak * progress / WARM_UP
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))


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
    report: dict[str, Any] = {"crops": len(held_out), "median_error_degrees": round(float(np.median(error)), 2)}
    if aside.isfinite().all():
        report["eyes_found_within"] = round(float(aside.median()), 4)
    report["by_size"] = {}
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


def write(
    average: Average, out: Path, facts: dict[str, Any], held_out: dict[str, Renders | None], told: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the averaged network and what it can do; returns the report."""
    network = GazeNetwork(NAMES)
    network.load_state_dict(average.state)
    network.eval()
    write_json(out / "config.json", {"names": [*NAMES]})
    facts = {**{key: round(value, 2) for key, value in facts.items()}, **told}
    sha256 = write_weights(out / "model.safetensors", network.state_dict(), {"pretraining": facts})
    report: dict[str, Any] = {"sha256": sha256, "training": facts}
    report |= {name: errors_of(network, crops) for name, crops in held_out.items() if crops is not None}
    write_json(out / "pretraining.json", report)
    return report


class Processes:
    """The processes of torchrun, or this one alone: each learns from its own share of the crops."""

    def __init__(self) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        if self.count > 1:
            distributed.init_process_group("gloo")

    @property
    def share(self) -> slice:
        """The rows that this process learns from."""
        return slice(self.rank, None, self.count)

    def begin_alike(self, network: nn.Module) -> None:
        """Give all processes the first one's weights."""
        if self.count > 1:
            for tensor in network.state_dict().values():
                distributed.broadcast(tensor, 0)

    def agree(self, network: nn.Module, number: float) -> float:
        """Average the gradients over all processes, and a number, which is returned."""
        if self.count == 1:
            return number
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor([number])])
        distributed.all_reduce(flat)
        flat /= self.count
        for gradient, mean in zip(gradients, flat[:-1].split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
        return float(flat[-1])


def pretrain(
    renders: Path,
    out: Path,
    minutes: float,
    seed: int = 0,
    every: float = 5,
    clips: Sequence[Path] = (),
    start: Path | None = None,
    peak: float = LEARNING_RATE,
) -> None:
    """Train, and write weights and report every few minutes.

    Args:
        renders: folder of shards; new ones are taken up between epochs.
        out: folder for ``config.json``, ``model.safetensors`` and ``pretraining.json``.
        minutes: of training.
        seed: of weights, order and augmentation.
        every: minutes between two reports.
        clips: folders in SynthLAM's layout, of whose training splits it learns too; their validation splits are
            reported.
        start: folder of the weights to go on from.
        peak: the highest learning rate.
    """
    processes = Processes()
    known: set[str] = set()
    training = load_renders(renders, PREPROCESSING, known, held_out=False, share=processes.share)
    if training is None:
        raise UserError(f"{renders} holds no shard to train on; write some with `python -m tools.synthlam`")
    torch.manual_seed(seed)
    network = GazeNetwork(NAMES, training.targets.mean(0), training.targets.std(0).clamp_min(1e-3))
    told: dict[str, Any] = {"processes": processes.count}
    if start is not None:
        network.load_state_dict(load_file(start / "model.safetensors"))
        told["went_on_from"] = json.loads((start / "pretraining.json").read_text(encoding="utf-8"))["training"]
    processes.begin_alike(network)
    generator = torch.Generator().manual_seed(seed + processes.rank)
    held_out: dict[str, Renders | None] = {}
    if processes.rank == 0:
        held_out["held_out_renders"] = load_renders(renders, PREPROCESSING, set(), held_out=True)
    if clips:
        parts = [training, *(load_clips(folder, "train", processes.share) for folder in clips)]
        del training
        training = together(parts)
        if processes.rank == 0:
            held_out["held_out_clips"] = together([load_clips(folder, "val") for folder in clips])
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98), fused=True)
    average = Average(network)
    out.mkdir(parents=True, exist_ok=True)
    steps, seen, spent, reported, losses = 0, 0, 0.0, 0.0, []
    started = time.monotonic()
    while spent < minutes:
        more = load_renders(renders, PREPROCESSING, known, held_out=False, share=processes.share)
        if more is not None:
            training = together([training, more])
        for rows in batches(len(training), generator):
            for group in optimizer.param_groups:
                group["lr"] = rate(spent / minutes, peak)
            rows = rows[training.targets[rows].isnan().any(1).int().argsort(stable=True)]  # those of clips come last
            images = training.images[rows].permute(0, 3, 1, 2).float() / 255
            images, targets = augment(images, training.targets[rows], generator)
            images = PREPROCESSING.normalise((images * 255).permute(0, 2, 3, 1))
            between = between_eyes(targets)
            between = between[: int(between.isfinite().all(1).sum()) // 2]
            between = between + ASIDE * torch.randn(between.shape, generator=generator)
            loss = loss_of(network, images.contiguous(memory_format=torch.channels_last), targets, between)
            optimizer.zero_grad()
            loss.backward()
            spent = processes.agree(network, (time.monotonic() - started) / 60)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            average.update(network)
            losses.append(loss.item())
            steps, seen = steps + 1, seen + len(rows) * processes.count
            if spent >= minutes:
                break
            if spent - reported >= every:
                if processes.rank == 0:
                    report = write(average, out, {"minutes": spent, "steps": steps, "crops": seen}, held_out, told)
                    print(
                        f"{spent:.1f} min, {seen} crops, loss {np.mean(losses):.4f}, {json.dumps(report)}", flush=True
                    )
                reported, losses = spent, []
    if processes.rank == 0:
        distinct = len(training) * processes.count
        write(average, out, {"minutes": spent, "steps": steps, "crops": seen, "distinct": distinct}, held_out, told)


def update_card(card: Path, report: dict[str, Any]) -> None:
    """Put a report's hash and figures into the card; its words stay."""
    source = "zoo/weights/gaze_nano/pretraining.json"
    figures: list[dict[str, Any]] = []
    for part, split in HELD_OUT.items():
        if part not in report:
            continue

        def add(metric: str, value: float, split: str = split) -> None:
            figures.append({"metric": metric, "value": value, "split": split, "source": source})

        add("gaze: median error, degrees", report[part]["median_error_degrees"])
        for size, errors in report[part]["by_size"].items():
            add(f"gaze: median error, degrees, faces of {size}", errors["median_error_degrees"])
            share = f"{100 * errors['share_looking']:.0f} % looking"
            add(f"AP looking, faces of {size}, {share}", errors["AP_looking"])
    data = json.loads(card.read_text(encoding="utf-8"))
    data["weights"][0]["sha256"] = report["sha256"]
    data["figures"] = figures
    write_json(card, data)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--renders", type=Path, required=True, help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--minutes", type=float, default=60, help="of training (default: %(default)s)")
    parser.add_argument(
        "--clips", type=Path, nargs="+", default=[], help="folders in SynthLAM's layout, to learn from too"
    )
    parser.add_argument("--weights", type=Path, help="folder of the weights to go on from")
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="the highest (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        pretrain(
            arguments.renders,
            arguments.out,
            arguments.minutes,
            arguments.seed,
            clips=arguments.clips,
            start=arguments.weights,
            peak=arguments.rate,
        )
        if arguments.out.resolve() == FOLDER and os.environ.get("RANK", "0") == "0":
            update_card(CARDS / "gaze_nano.json", json.loads((FOLDER / "pretraining.json").read_text(encoding="utf-8")))
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
