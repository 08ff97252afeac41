"""Pretrain the small InternViT on renders: it learns the parameters with which the renderer drew each face.

    python -m tools.synthlam pretraining --count 60000 --seed 1 --out RENDERS
    python -m tools.pretrain_nano --renders RENDERS --out zoo/weights/internvit_nano --minutes 50

The network regresses the renderer's parameters from one crop: yaw, pitch and roll of the head; the rotation of each eye
in the head; openness of lids and jaw; brows and smile; five landmarks; and the crop's size in pixels. Neither the
benchmark's label (looking at the camera or not) nor the angle between gaze and camera is a target: a backbone that had
seen them would hand the answer to every head, and heads could no longer be compared. InternViT-6B never saw the label
either. It describes faces in general, and this task is as close as rendered faces come to that. Head and eyes are
separate targets; combining them is left to the benchmarked head.

The people in these renders occur in no split of SynthLAM. One shard in twenty is held out, and no person occurs in two
shards. One linear layer, discarded after training, reads the targets from the CLS token, the only token that heads see.

Three measures let a transformer find eyes a dozen pixels wide in under an hour on two cores. Without them it had learnt
heads but not eyes after 100,000 crops, although a small convolutional network reads gaze from cut-out eyes after 8,000.
The patch embedding starts as a whitening of patches. The patches that show the eyes have a readout of their own. And
training starts with the eyes enlarged and at a fixed place, then moves gradually to the original framing.

Time, not epochs, sets the schedule, so that a run on a busy machine ends on time.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from backbones.internvit import NANO_FOLDER
from registry import UserError
from tools.pretraining.figures import errors_of, linear_probe
from tools.pretraining.regressor import CONFIG, EYES, PREPROCESSING, Regressor, whiten_patches
from tools.pretraining.renders import Renders, augment, load_renders, together
from tools.pretraining.steps import Average, Schedule, batches
from zoo.cards import FOLDER as CARDS
from zoo.files.atomic import write_json
from zoo.weights import write_weights

LEARNING_RATE, WARM_UP, WEIGHT_DECAY = 1e-3, 0.03, 0.05
ALIGNED_UNTIL = 0.6  # share of the training with aligned eyes


class NanoTraining:
    """A pretraining in progress, with the state that ``training.pt`` keeps."""

    def __init__(self, training: Renders, schedule: Schedule, compiled: bool) -> None:
        torch.manual_seed(schedule.seed)
        self.schedule = schedule
        self.generator = torch.Generator().manual_seed(schedule.seed)
        self.model = Regressor(training.targets.mean(0), training.targets.std(0).clamp_min(1e-3))
        some = training.images[:: max(1, len(training) // 1000)]
        whiten_patches(self.model.network, PREPROCESSING.normalise(some))
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
            betas=(0.9, 0.98),
            fused=True,
        )
        self.average = Average(self.model)
        self.spent, self.seen = 0.0, 0  # minutes and crops
        self.forward: Any = torch.compile(self.model) if compiled else self.model

    def step(self, images: Tensor, targets: Tensor) -> float:
        """Learn from a batch of ``images (B, S, S, 3)`` uint8 and return the loss."""
        pixels = images.permute(0, 3, 1, 2).float() / 255
        aligned = max(0.0, 1 - self.spent / self.schedule.minutes / ALIGNED_UNTIL)
        pixels, targets = augment(pixels, targets, self.generator, aligned)
        pixels = PREPROCESSING.normalise((pixels * 255).permute(0, 2, 3, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.spent)
        with sdpa_kernel(SDPBackend.MATH):  # fused attention trains more slowly on a CPU
            loss = self.model.loss(pixels, targets, self.forward)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.model)
        self.seen += len(images)
        return loss.item()

    def facts(self) -> dict[str, Any]:
        """Minutes, steps and crops so far."""
        return {"minutes": self.spent, "steps": self.average.steps, "crops": self.seen}

    def save(self, path: Path) -> None:
        """Write everything that `resume` needs."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state,
        }
        torch.save({**state, "spent": self.spent, "steps": self.average.steps, "seen": self.seen}, path)

    def resume(self, path: Path) -> None:
        """Continue from a saved state."""
        saved = torch.load(path, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average.state, self.average.steps = saved["average"], saved["steps"]
        self.spent, self.seen = saved["spent"], saved["seen"]


def pretrain(renders: Path, out: Path, schedule: Schedule, compiled: bool = True) -> None:
    """Train; write weights and a report every few minutes and at the end.

    Args:
        renders: folder of shards; new shards are read between epochs.
        out: folder for ``config.json``, ``model.safetensors`` and ``pretraining.json``. ``training.pt`` beside them
            lets an interrupted training resume; it is deleted at the end.
        schedule: its minutes include earlier runs into the same folder.
        compiled: compile the network, which pays from a minute of training on.

    Raises:
        UserError: there are no shards.
    """
    known: set[str] = set()
    training = load_renders(renders, PREPROCESSING, known, held_out=False)
    if training is None:
        raise UserError(f"{renders} has no training shards; write some with `python -m tools.synthlam pretraining`")
    work = NanoTraining(training, schedule, compiled)
    state = out / "training.pt"
    out.mkdir(parents=True, exist_ok=True)
    if state.is_file():
        work.resume(state)
    started, reported, losses = time.monotonic() - work.spent * 60, work.spent, []
    while work.spent < schedule.minutes:
        if (more := load_renders(renders, PREPROCESSING, known, held_out=False)) is not None:
            training = together([training, more])
        for rows in batches(len(training), work.generator):
            losses.append(work.step(training.images[rows], training.targets[rows]))
            work.spent = (time.monotonic() - started) / 60
            if work.spent >= schedule.minutes:
                break
            if work.spent - reported >= schedule.every:
                report = write(work.average, out, renders, work.facts())
                work.save(state)
                gaze = report.get("readout", {}).get("gaze_degrees")
                print(f"{work.spent:.1f} min, {work.seen} crops, loss {np.mean(losses):.4f}, gaze {gaze}", flush=True)
                reported, losses = work.spent, []
    write(work.average, out, renders, work.facts() | {"distinct": len(training)})
    state.unlink(missing_ok=True)


@torch.inference_mode()
def write(average: Average, out: Path, renders: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the averaged network in the official format and its errors on held-out people; return the report."""
    model = Regressor(average.state["mean"], average.state["std"])
    model.load_state_dict(average.state)
    model.eval()
    write_json(out / "config.json", CONFIG)
    sizes = {"size": PREPROCESSING.resize, "crop_size": PREPROCESSING.size, "resample": 3}
    write_json(out / "preprocessor_config.json", sizes)
    sha256 = write_weights(out / "model.safetensors", model.network.state_dict(), {"pretraining": facts})
    report: dict[str, Any] = {"sha256": sha256, "training": {k: round(v, 2) for k, v in facts.items()}}
    held_out = load_renders(renders, PREPROCESSING, set(), held_out=True)
    if held_out is not None:
        parts = [model.network(PREPROCESSING.normalise(batch)) for batch in held_out.images.split(256)]
        features = torch.cat(parts)  # CLS tokens (N, D)
        predicted = model.readout(features) * model.std + model.mean
        targets = held_out.targets.numpy()
        probed = linear_probe(features.double().numpy(), targets.astype(np.float64))
        report["held_out_crops"] = len(held_out)
        report["readout"] = errors_of(predicted.numpy(), targets)
        report["linear_probe"] = errors_of(probed, targets)
    write_json(out / "pretraining.json", report)
    return report


def update_card(card: Path, report: dict[str, Any]) -> None:
    """Replace hash and figures in the model's card; keep its text."""
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
    data = json.loads(card.read_text(encoding="utf-8"))
    data["weights"][0]["sha256"] = report["sha256"]
    data["figures"] = [{"metric": m, "value": v, "split": split, "source": source} for m, v in figures]
    write_json(card, data)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--renders", type=Path, required=True, help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--minutes", type=float, default=50, help="training time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        pretrain(args.renders, args.out, Schedule(args.minutes, LEARNING_RATE, WARM_UP, args.seed))
        if args.out.resolve() == NANO_FOLDER:
            update_card(CARDS / "internvit_nano.json", json.loads((NANO_FOLDER / "pretraining.json").read_text()))
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
