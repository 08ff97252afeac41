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

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional

from backbones.gaze_nano import ANGLES, EYES, FOLDER, PREPROCESSING, GazeNetwork
from registry import UserError
from tools.pretraining.clips import load_clips
from tools.pretraining.figures import HELD_OUT, by_size, degrees_between, gazes
from tools.pretraining.loop import Training, argument_parser, run, update_card
from tools.pretraining.processes import Processes
from tools.pretraining.renders import NAMES, Renders, augment, load_renders, load_training, together
from tools.pretraining.steps import Average, Schedule, huber
from tools.synthlam.scene import LOOKING_DEG
from zoo.cards import FOLDER as CARDS
from zoo.files.atomic import write_json
from zoo.weights import write_weights

LEARNING_RATE, WARM_UP = 2e-3, 0.02
ASIDE = 0.015  # standard deviation of the cut-outs around the true places of the eyes, in sides of the picture
COLUMNS = [NAMES.index(name) for name in ANGLES]
PLACES = [NAMES.index(name) for name in EYES]
SIZE = NAMES.index("log_size")
NEAR_DEG = 20  # gazes that pass the camera within this angle have a figure of their own


def between_eyes(targets: Tensor) -> Tensor:
    """Return the point between the eyes ``(B, 2)``, x and y in [0, 1], of ``targets (B, len(NAMES))``."""
    places = targets[:, PLACES]
    return (places[:, :2] + places[:, 2:]) / 2


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
    error = degrees_between(found, true)
    near = (true[:, 2] > math.cos(math.radians(NEAR_DEG))).numpy()
    looking = (true[:, 2] > math.cos(math.radians(LOOKING_DEG))).numpy()
    aside = (between_eyes(known * network.std + network.mean) - between_eyes(held_out.targets)).norm(dim=1)
    report: dict[str, Any] = {"crops": len(held_out), "median_error_degrees": round(float(np.median(error)), 2)}
    if aside.isfinite().all():
        report["eyes_found_within"] = round(float(aside.median()), 4)
    report["by_size"] = {}
    for size, inside in by_size(held_out.targets):
        report["by_size"][size] = {
            "crops": int(inside.sum()),
            "median_error_degrees": round(float(np.median(error[inside])), 2),
            f"median_error_degrees_within_{NEAR_DEG}": round(float(np.median(error[inside & near])), 2),
            "AP_looking": round(float(average_precision_score(looking[inside], gaze[inside, 8].numpy())), 3),
            "share_looking": round(float(looking[inside].mean()), 3),
        }
    return report


def write(average: Average, out: Path, facts: dict[str, Any], held_out: Mapping[str, Renders | None]) -> dict[str, Any]:
    """Write the averaged network and its errors on held-out people; return the report."""
    network = GazeNetwork(NAMES)
    network.load_state_dict(average.state)
    network.eval()
    write_json(out / "config.json", {"names": [*NAMES]})
    sha256 = write_weights(out / "model.safetensors", network.state_dict(), {"pretraining": facts})
    report: dict[str, Any] = {"sha256": sha256, "training": facts}
    report |= {name: errors_of(network, crops) for name, crops in held_out.items() if crops is not None}
    write_json(out / "pretraining.json", report)
    return report


class GazeTraining(Training):
    """A training of the gaze network in progress."""

    network: GazeNetwork

    def __init__(self, network: GazeNetwork, schedule: Schedule, processes: Processes) -> None:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(network, network.parameters(), schedule, processes)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        rows = targets.isnan().any(1).int().argsort(stable=True)  # renders before clips
        pixels = images[rows].permute(0, 3, 1, 2).float() / 255
        pixels, targets = augment(pixels, targets[rows], self.generator)
        pixels = PREPROCESSING.normalise((pixels * 255).permute(0, 2, 3, 1))
        between = between_eyes(targets)
        between = between[: int(between.isfinite().all(1).sum()) // 2]
        between = between + ASIDE * torch.randn(between.shape, generator=self.generator)
        return loss_of(self.network, pixels.contiguous(memory_format=torch.channels_last), targets, between)


def pretrain(
    renders: Path, out: Path, schedule: Schedule, clips: Sequence[Path] = (), start: Path | None = None
) -> None:
    """Train; write weights and a report every few minutes and at the end.

    Args:
        renders: folder of shards; new shards are read between epochs.
        out: folder for ``config.json``, ``model.safetensors`` and ``pretraining.json``. ``training.pt`` beside them
            lets an interrupted training resume; it is deleted at the end.
        schedule: its minutes include earlier runs into the same folder.
        clips: folders in SynthLAM's layout. Their training splits are learnt from too; their validation splits are
            reported.
        start: folder of the initial weights.

    Raises:
        UserError: there are no shards.
    """
    processes = Processes()
    more = partial(load_renders, renders, PREPROCESSING, set(), held_out=False, share=processes.share)
    training = load_training(renders, more)
    torch.manual_seed(schedule.seed)
    network = GazeNetwork(NAMES, training.targets.mean(0), training.targets.std(0).clamp_min(1e-3))
    about: dict[str, Any] = {"processes": processes.count}
    if start is not None:
        network.load_state_dict(load_file(start / "model.safetensors"))
        about["went_on_from"] = json.loads((start / "pretraining.json").read_text(encoding="utf-8"))["training"]
    processes.begin_alike(network)
    if clips:
        parts = [training, *(load_clips(folder, "train", PREPROCESSING, processes.share) for folder in clips)]
        del training  # `together` frees each part once it is copied
        training = together(parts)
    held_out = load_held_out(renders, clips) if processes.rank == 0 else {}
    work = GazeTraining(network, schedule, processes)
    run(work, training, more, out, lambda facts: json.dumps(write(work.average, out, facts | about, held_out)))


def load_held_out(renders: Path, clips: Sequence[Path]) -> dict[str, Renders | None]:
    """Read the crops for the report: held-out shards, and the validation splits of clips."""
    held_out = {"held_out_renders": load_renders(renders, PREPROCESSING, set(), held_out=True)}
    if clips:
        held_out["held_out_clips"] = together([load_clips(folder, "val", PREPROCESSING) for folder in clips])
    return held_out


def card_figures(report: dict[str, Any]) -> Iterator[tuple[str, float, str]]:
    """Yield metric, value and split of the figures in the model's card."""
    for part, split in HELD_OUT.items():
        if part not in report:
            continue
        yield "gaze: median error, degrees", report[part]["median_error_degrees"], split
        for size, errors in report[part]["by_size"].items():
            share = f"{100 * errors['share_looking']:.0f} % looking"
            yield f"gaze: median error, degrees, faces of {size}", errors["median_error_degrees"], split
            yield f"AP looking, faces of {size}, {share}", errors["AP_looking"], split


def main() -> None:
    """Run from the command line."""
    parser = argument_parser(__doc__, minutes=60)
    parser.add_argument("--clips", type=Path, nargs="+", default=[], help="folders in SynthLAM's layout to learn from")
    parser.add_argument("--weights", type=Path, help="folder of the initial weights")
    parser.add_argument(
        "--rate", type=float, default=LEARNING_RATE, help="peak of the learning rate (default: %(default)s)"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        schedule = Schedule(args.minutes, args.rate, WARM_UP, args.seed)
        pretrain(args.renders, args.out, schedule, args.clips, args.weights)
        if args.out.resolve() == FOLDER and os.environ.get("RANK", "0") == "0":
            report = json.loads((FOLDER / "pretraining.json").read_text(encoding="utf-8"))
            update_card(CARDS / "gaze_nano.json", report, card_figures(report))
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
