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

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from backbones.internvit import NANO_FOLDER
from registry import UserError
from tools.pretraining.figures import HELD_OUT, errors_of, linear_probe
from tools.pretraining.loop import Training, argument_parser, run, update_card
from tools.pretraining.processes import Processes
from tools.pretraining.regressor import CONFIG, EYES, PREPROCESSING, Regressor, whiten_patches
from tools.pretraining.renders import Renders, augment, load_renders, load_training
from tools.pretraining.steps import Average, Schedule
from zoo.cards import FOLDER as CARDS
from zoo.files.atomic import write_json
from zoo.weights import write_weights

LEARNING_RATE, WARM_UP = 1e-3, 0.03
ALIGNED_UNTIL = 0.6  # share of the training with aligned eyes


class NanoTraining(Training):
    """A pretraining of the small InternViT in progress."""

    network: Regressor

    def __init__(self, training: Renders, schedule: Schedule, compiled: bool) -> None:
        torch.manual_seed(schedule.seed)
        model = Regressor(training.targets.mean(0), training.targets.std(0).clamp_min(1e-3))
        some = training.images[:: max(1, len(training) // 1000)]
        whiten_patches(model.network, PREPROCESSING.normalise(some))
        decayed = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        super().__init__(model, [{"params": decayed}, {"params": others, "weight_decay": 0.0}], schedule, Processes())
        self.forward: Any = torch.compile(model) if compiled else model

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float() / 255
        aligned = max(0.0, 1 - self.spent / self.schedule.minutes / ALIGNED_UNTIL)
        pixels, targets = augment(pixels, targets, self.generator, aligned)
        pixels = PREPROCESSING.normalise((pixels * 255).permute(0, 2, 3, 1))
        with sdpa_kernel(SDPBackend.MATH):  # fused attention trains more slowly on a CPU
            return self.network.loss(pixels, targets, self.forward)


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
    more = partial(load_renders, renders, PREPROCESSING, set(), held_out=False)
    training = load_training(renders, more)
    work = NanoTraining(training, schedule, compiled)

    def report(facts: dict[str, Any]) -> str:
        gaze = write(work.average, out, renders, facts).get("readout", {}).get("gaze_degrees")
        return f"gaze {gaze}"

    run(work, training, more, out, report)


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
    report: dict[str, Any] = {"sha256": sha256, "training": facts}
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


def card_figures(report: dict[str, Any]) -> Iterator[tuple[str, float, str]]:
    """Yield metric, value and split of the figures in the model's card."""
    split = HELD_OUT["held_out_renders"]
    for target in ("gaze_degrees", "head_yaw", "head_pitch", "head_roll", *EYES):
        name = target.removesuffix("_degrees")
        for how, errors in (("training's readout", report["readout"]), ("linear probe", report["linear_probe"])):
            yield f"{name}: median error of the {how}, degrees", errors[target]["median_error"], split
        guessing = report["readout"][target]["median_error_of_guessing"]
        yield f"{name}: median error of guessing the median, degrees", guessing, split


def main() -> None:
    """Run from the command line."""
    args = argument_parser(__doc__, minutes=50).parse_args()
    torch.set_num_threads(args.threads)
    try:
        pretrain(args.renders, args.out, Schedule(args.minutes, LEARNING_RATE, WARM_UP, args.seed))
        if args.out.resolve() == NANO_FOLDER:
            report = json.loads((NANO_FOLDER / "pretraining.json").read_text(encoding="utf-8"))
            update_card(CARDS / "internvit_nano.json", report, card_figures(report))
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
