r"""Train the small gaze network on renders; it is the backbone of the model that `predict` uses.

    python -m tools.synthlam pretraining --count 100000 --seed 1 --out RENDERS
    python -m tools.pretrain_gaze --renders RENDERS --out zoo/weights/gaze_nano --minutes 60

Faces in clips are turned, lit and blurred differently from faces that are drawn one by one. To learn from clips too, on
all cores and from existing weights:

    python -m tools.synthlam clips --seed 2 --times 7 --every 10 --out CLIPS
    python -m torch.distributed.run --nproc-per-node 2 -m tools.pretrain_gaze --renders RENDERS --clips CLIPS \
        --weights DIR --out zoo/weights/gaze_nano --threads 1

Unlike in `pretrain_nano`, the targets include the benchmark's question: the rotation of the eyes in the head, the gaze
as seen from the camera, and whether it meets the camera. This network is meant to be right on a video, not to compare
heads. The people in the renders occur in no split of SynthLAM; one shard in twenty is held out.

The first stream learns the renderer's parameters of the face, among them the places of the eyes. The second stream sees
the eyes cut out at those places. In half of the training crops they are cut out at their true places, moved by a pixel
or so, so that the second stream can learn before the first has found the eyes.

`python -m tools.fit_framing` then fits the framing of a detector's crops to outputs of the trained network.

Time, not epochs, sets the schedule, so that a run on a busy machine ends on time.
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
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn import functional

from backbones.gaze_nano import ANGLES, EYES, FOLDER, PREPROCESSING, GazeNetwork
from registry import UserError
from tools.pretraining.clips import load_clips
from tools.pretraining.figures import gaze_directions
from tools.pretraining.processes import Processes
from tools.pretraining.renders import NAMES, Renders, augment, load_renders, together
from tools.pretraining.steps import Average, Schedule, batches, huber
from tools.synthlam.scene import LOOKING_DEG
from zoo.cards import FOLDER as CARDS
from zoo.files.atomic import write_json
from zoo.weights import write_weights

LEARNING_RATE, WARM_UP, WEIGHT_DECAY = 2e-3, 0.02, 0.05
ASIDE = 0.015  # standard deviation of the cut-outs around the true places of the eyes, in sides of the picture
COLUMNS = [NAMES.index(name) for name in ANGLES]
PLACES = [NAMES.index(name) for name in EYES]
SIZE = NAMES.index("log_size")
SIZES = ((0, 40), (40, 55), (55, 70), (70, 90), (90, 1000))  # pixels, of the report
HELD_OUT = {
    "held_out_renders": "held-out renders, people unseen in training",
    "held_out_clips": "rendered clips, people unseen in training",
}
NEAR_DEG = 20  # gazes that pass the camera within this angle have a figure of their own


def between_eyes(targets: Tensor) -> Tensor:
    """Return the point between the eyes ``(B, 2)``, x and y in [0, 1], of ``targets (B, len(NAMES))``."""
    places = targets[:, PLACES]
    return (places[:, :2] + places[:, 2:]) / 2


def gazes(targets: Tensor) -> Tensor:
    """Return unit vectors ``(B, 3)`` of the gaze, seen from the camera; the third component points towards it."""
    return torch.from_numpy(gaze_directions(targets.numpy().astype(np.float64)).astype(np.float32))


def loss_of(network: GazeNetwork, images: Tensor, targets: Tensor, between: Tensor) -> Tensor:
    """Return the training loss.

    Args:
        network: in training.
        images: ``(B, 3, S, S)``, normalised.
        targets: ``(B, len(NAMES))``; NaN if unknown.
        between: ``(K, 2)``, where to cut out the eyes of the first K images; for the others the network decides.

    Returns:
        The sum of Huber losses of the known parameters and of the eye angles, the negative logarithm of a Laplace
        density for the gaze, and cross entropy of looking.
    """
    with torch.autocast("cpu", torch.bfloat16):
        _, gaze, known = network.look(images, between)
    gaze, known = gaze.float(), known.float()
    wanted = (targets - network.mean) / network.std
    given = wanted.isfinite()
    # An eye three pixels wide teaches little.
    detail = (targets[:, SIZE].exp() / 60).clamp(max=2)[:, None]
    true = gazes(targets)
    spread = gaze[:, 6:8].clamp(-4, 1)
    at_camera = (true[:, 2] > math.cos(math.radians(LOOKING_DEG))).float()
    return (
        2 * huber(known[given], wanted[given]).mean()
        + 4 * (huber(gaze[:, :4], wanted[:, COLUMNS]) * detail).mean()
        + 0.6 * ((gaze[:, 4:6] - true[:, :2]).abs() * (-spread).exp() + spread).mean()
        + functional.binary_cross_entropy_with_logits(gaze[:, 8], at_camera)
    )


@torch.inference_mode()
def errors_of(network: GazeNetwork, held_out: Renders) -> dict[str, Any]:
    """Return the network's errors on held-out people: gaze in degrees, and average precision of looking."""
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
    average: Average, out: Path, facts: dict[str, Any], held_out: Mapping[str, Renders | None], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the averaged network and its errors on held-out people; return the report."""
    network = GazeNetwork(NAMES)
    network.load_state_dict(average.state)
    network.eval()
    write_json(out / "config.json", {"names": [*NAMES]})
    facts = {**{key: round(value, 2) for key, value in facts.items()}, **about}
    sha256 = write_weights(out / "model.safetensors", network.state_dict(), {"pretraining": facts})
    report: dict[str, Any] = {"sha256": sha256, "training": facts}
    report |= {name: errors_of(network, crops) for name, crops in held_out.items() if crops is not None}
    write_json(out / "pretraining.json", report)
    return report


class GazeTraining:
    """A pretraining in progress."""

    def __init__(self, network: GazeNetwork, schedule: Schedule, processes: Processes) -> None:
        self.schedule = schedule
        self.processes = processes
        self.generator = torch.Generator().manual_seed(schedule.seed + processes.rank)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            network.parameters(), weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98), fused=True
        )
        self.average = Average(network)
        self.spent, self.seen = 0.0, 0  # minutes and crops, of all processes
        self._started = time.monotonic()

    def step(self, images: Tensor, targets: Tensor) -> float:
        """Learn from a batch of ``images (B, S, S, 3)`` uint8, renders before clips, and return the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.spent)
        pixels = images.permute(0, 3, 1, 2).float() / 255
        pixels, targets = augment(pixels, targets, self.generator)
        pixels = PREPROCESSING.normalise((pixels * 255).permute(0, 2, 3, 1))
        between = between_eyes(targets)
        between = between[: int(between.isfinite().all(1).sum()) // 2]
        between = between + ASIDE * torch.randn(between.shape, generator=self.generator)
        loss = loss_of(self.network, pixels.contiguous(memory_format=torch.channels_last), targets, between)
        self.optimizer.zero_grad()
        loss.backward()
        self.spent = self.processes.agree(self.network, (time.monotonic() - self._started) / 60)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.network)
        self.seen += len(images) * self.processes.count
        return loss.item()

    def facts(self) -> dict[str, Any]:
        """Minutes, steps and crops so far."""
        return {"minutes": self.spent, "steps": self.average.steps, "crops": self.seen}


def pretrain(
    renders: Path, out: Path, schedule: Schedule, clips: Sequence[Path] = (), start: Path | None = None
) -> None:
    """Train; write weights and a report every few minutes and at the end.

    Args:
        renders: folder of shards; new shards are read between epochs.
        out: folder for ``config.json``, ``model.safetensors`` and ``pretraining.json``.
        schedule: of the training.
        clips: folders in SynthLAM's layout. Their training splits are learnt from too; their validation splits are
            reported.
        start: folder of the initial weights.

    Raises:
        UserError: there are no shards.
    """
    processes = Processes()
    known: set[str] = set()
    training = load_renders(renders, PREPROCESSING, known, held_out=False, share=processes.share)
    if training is None:
        raise UserError(f"{renders} has no training shards; write some with `python -m tools.synthlam pretraining`")
    torch.manual_seed(schedule.seed)
    network = GazeNetwork(NAMES, training.targets.mean(0), training.targets.std(0).clamp_min(1e-3))
    about: dict[str, Any] = {"processes": processes.count}
    if start is not None:
        network.load_state_dict(load_file(start / "model.safetensors"))
        about["went_on_from"] = json.loads((start / "pretraining.json").read_text(encoding="utf-8"))["training"]
    processes.begin_alike(network)
    if clips:
        parts = [training, *(load_clips(folder, "train", processes.share) for folder in clips)]
        del training  # `together` frees each part once it is copied
        training = together(parts)
    held_out = load_held_out(renders, clips) if processes.rank == 0 else {}
    work = GazeTraining(network, schedule, processes)
    out.mkdir(parents=True, exist_ok=True)
    reported, losses = 0.0, []
    while work.spent < schedule.minutes:
        more = load_renders(renders, PREPROCESSING, known, held_out=False, share=processes.share)
        if more is not None:
            training = together([training, more])
        for rows in batches(len(training), work.generator):
            rows = rows[training.targets[rows].isnan().any(1).int().argsort(stable=True)]  # renders before clips
            losses.append(work.step(training.images[rows], training.targets[rows]))
            if work.spent >= schedule.minutes:
                break
            if work.spent - reported >= schedule.every:
                if processes.rank == 0:
                    report = json.dumps(write(work.average, out, work.facts(), held_out, about))
                    print(f"{work.spent:.1f} min, {work.seen} crops, loss {np.mean(losses):.4f}, {report}", flush=True)
                reported, losses = work.spent, []
    if processes.rank == 0:
        write(work.average, out, work.facts() | {"distinct": len(training) * processes.count}, held_out, about)


def load_held_out(renders: Path, clips: Sequence[Path]) -> dict[str, Renders | None]:
    """Read the crops for the report: held-out shards, and the validation splits of clips."""
    held_out = {"held_out_renders": load_renders(renders, PREPROCESSING, set(), held_out=True)}
    if clips:
        held_out["held_out_clips"] = together([load_clips(folder, "val") for folder in clips])
    return held_out


def update_card(card: Path, report: dict[str, Any]) -> None:
    """Replace hash and figures in the model's card; keep its text."""
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
    parser.add_argument("--minutes", type=float, default=60, help="training time (default: %(default)s)")
    parser.add_argument("--clips", type=Path, nargs="+", default=[], help="folders in SynthLAM's layout to learn from")
    parser.add_argument("--weights", type=Path, help="folder of the initial weights")
    parser.add_argument(
        "--rate", type=float, default=LEARNING_RATE, help="peak of the learning rate (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        schedule = Schedule(args.minutes, args.rate, WARM_UP, args.seed)
        pretrain(args.renders, args.out, schedule, args.clips, args.weights)
        if args.out.resolve() == FOLDER and os.environ.get("RANK", "0") == "0":
            update_card(CARDS / "gaze_nano.json", json.loads((FOLDER / "pretraining.json").read_text(encoding="utf-8")))
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
