r"""Train `gaze_resnet18` and GazeLSTM's LSTM on the gaze of rendered heads, to stand in for Gaze360's weights.

    python -m tools.synthlam pretraining --count 33000 --seed 1 --out RENDERS
    python -m tools.pretrain_gaze_resnet --renders RENDERS --out zoo/weights/gaze_resnet18_renders

GazePose starts from the weights of Gaze360's authors (Kellnhofer et al. 2019, "Gaze360: Physically unconstrained gaze
estimation in the wild"), which may not be shipped. This is their task on renders of people who are in no split of
SynthLAM: from a window of seven crops, yaw and pitch of the gaze in the middle one, seen from the camera, and how far
off they may be. Loss: pinball, for the 10 % and the 90 % quantile. The label (looking at the camera or not) is no
target, but a network that knew the gaze to a degree would know the label; the card says how far off this one is.

Gaze360's network had seen ImageNet before. This one starts at random, and would learn the head's pose long before it
finds the eyes. So while it trains, linear layers on its maps learn the renderer's parameters of the face, as in
`pretrain_nano`: all of them from the last map, and the angles of the eyes from a middle one, where the eyes are. In the
first half of the training nothing behind the third of its four stages is computed, which more than doubles the crops.

Renders are windows of one frame, repeated. In clips, from `python -m tools.synthlam clips`, heads and eyes move. Each
batch has 64 renders and, with ``--clips``, 45 windows in three stretches of clips; they share frames, so both halves of
a batch cost the same. The shipped weights have seen renders only, as many as internvit_nano.

The file has the tensors that `import --as gaze360` writes, rounded to 8 bits: in bfloat16 trunk and LSTM would take
29 MB. The figures in ``pretraining.json`` are of the rounded weights, and one is of those before, for comparison.

Time, not epochs, sets the schedule, so that a run on a busy machine ends on time.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from backbones.base import Preprocessing
from backbones.gaze_resnet import RENDERS
from backbones.int8 import to_int8
from heads.base import Window
from registry import UserError
from tools.pretraining.clips import load_windows
from tools.pretraining.figures import HELD_OUT, by_size, degrees_between, gazes
from tools.pretraining.loop import Training, argument_parser, run
from tools.pretraining.processes import Processes
from tools.pretraining.regressor import EYES, parameter_loss
from tools.pretraining.renders import NAMES, Renders, augment, load_renders, load_training
from tools.pretraining.steps import Schedule
from zoo.cards import FOLDER as CARDS
from zoo.files.atomic import write_json
from zoo.model import LookingAtMeModel, PixelWindow
from zoo.published import WINDOW
from zoo.weights import read_weights, write_weights

LEARNING_RATE, WARM_UP = 2e-3, 0.03
QUANTILES = (0.1, 0.9)
# Per batch, with clips: stretches of consecutive windows. Their windows share frames, so that they cost as much as the
# renders of the batch.
STRETCHES, LENGTH = 3, 15
NOT_WRITTEN = ("head.last_layer.", "face.")  # no recipe uses them
EARLY = 0.5  # share of the training that stops at the third stage
GAZE_WEIGHT = 4.0  # pinball losses of radians are small beside those of standard deviations

Windows = tuple[Renders, Tensor]  # crops, and (N, 7) rows of them


class FaceLayers(nn.Module):
    """Linear layers that learn the renderer's parameters of the face from the trunk's maps.

    Args:
        trunk: timm's ResNet-18, whose maps of the last batch are kept.
        size: side of its input, pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: Any, size: int) -> None:
        super().__init__()
        self.everything, self.eyes = nn.Linear(512, len(NAMES)), nn.Linear(128, len(EYES))
        self.early = nn.Linear(256 * math.ceil(size / 16) ** 2, len(NAMES))
        self.register_buffer("mean", torch.zeros(len(NAMES)))
        self.register_buffer("std", torch.ones(len(NAMES)))
        self._maps: dict[str, Tensor] = {}
        for name in ("layer2", "layer4"):
            getattr(trunk, name).register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, _layer: nn.Module, _inputs: Any, maps: Tensor) -> None:
        if self.training:
            self._maps[name] = maps

    def loss(self, targets: Tensor) -> Tensor:
        """Return the loss of ``targets (B, len(NAMES))`` on the maps of the last batch."""
        return self._loss(self.everything(self._maps.pop("layer4").mean((2, 3))), targets)

    def early_loss(self, maps: Tensor, targets: Tensor) -> Tensor:
        """Return the same from the maps of the third stage, when the fourth is not computed."""
        return self._loss(self.early(maps.flatten(1)), targets)

    def _loss(self, everything: Tensor, targets: Tensor) -> Tensor:
        local = self.eyes(self._maps.pop("layer2").flatten(2).transpose(1, 2))
        return parameter_loss(everything, local, targets, (targets - self.mean) / self.std)


def build_network(size: int, seed: int) -> LookingAtMeModel:
    """Return GazeLSTM with random weights, three outputs, as Gaze360 has, in place of two, and `FaceLayers`."""
    backbone = {"type": "gaze_resnet18", "size": size, "seed": seed, "frozen": False}
    torch.manual_seed(seed)
    network = LookingAtMeModel.build(backbone, {"type": "gazelstm", "bottleneck": None})
    readout = network.head.last_layer = nn.Linear(512, 3)
    # The spread starts at 21 degrees, not at 90: angles within the spread get no gradient.
    nn.init.constant_(readout.bias[2:], -2.0)
    network.backbone.to(memory_format=torch.channels_last)
    network.add_module("face", FaceLayers(network.backbone.network, size))
    return network


def read_out(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the three outputs mean.

    Args:
        outputs: ``(B, 3)``.

    Returns:
        Yaw in [-pi, pi] and pitch in [-pi/2, pi/2], ``(B, 2)``; and the distance in (0, pi) of both from their
        quantiles, ``(B, 1)``. Radians, as in Gaze360.
    """
    ranges = outputs.new_tensor([math.pi, math.pi / 2])
    return outputs[:, :2].tanh() * ranges, outputs[:, 2:].sigmoid() * math.pi


def pinball(outputs: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean pinball loss of the two quantiles of yaw and pitch.

    Args:
        outputs: ``(B, 3)`` of the network.
        wanted: ``(B, 2)`` true yaw and pitch, radians.
    """
    angles, spread = read_out(outputs)
    losses = []
    for quantile, bound in zip(QUANTILES, (angles - spread, angles + spread), strict=True):
        above = wanted - bound
        losses.append(torch.maximum(quantile * above, (quantile - 1) * above))
    return torch.stack(losses).mean()


def gaze_angles(targets: Tensor) -> Tensor:
    """Return yaw and pitch ``(B, 2)`` of the gaze, seen from the camera, of ``targets (B, len(NAMES))``."""
    x, y, z = gazes(targets).unbind(1)
    return torch.stack([torch.atan2(x, z), y.clamp(-1, 1).asin()], 1)


class GazeResNetTraining(Training):
    """A training of trunk and LSTM in progress.

    Args:
        network: from `build_network`.
        schedule: of the training.
        processes: that share the work.
        clips: that windows are drawn from; None for renders alone.
    """

    network: LookingAtMeModel

    def __init__(
        self, network: LookingAtMeModel, schedule: Schedule, processes: Processes, clips: Windows | None
    ) -> None:
        super().__init__(network, network.parameters(), schedule, processes)
        self.clips = clips
        self.face = cast(FaceLayers, network.face)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        groups = torch.arange(len(images))
        windows = groups[:, None].expand(-1, WINDOW)
        if self.clips is not None:
            crops, of_clips = self.clips
            for start in torch.randint(len(of_clips) - LENGTH, (STRETCHES,), generator=self.generator):
                frames, places = of_clips[start : start + LENGTH].unique(return_inverse=True)
                windows = torch.cat([windows, len(images) + places])
                groups = torch.cat([groups, (groups[-1] + 1).expand(len(frames))])
                images = torch.cat([images, crops.images[frames]])
                targets = torch.cat([targets, crops.targets[frames]])
        pixels = images.permute(0, 3, 1, 2).float() / 255
        pixels, targets = augment(pixels, targets, self.generator, groups=groups)
        if self.spent < EARLY * self.schedule.minutes:
            trunk: Any = self.network.backbone.network
            images = self.network.backbone.preprocessing.normalise(pixels.permute(0, 2, 3, 1) * 255)
            stem = trunk.maxpool(trunk.act1(trunk.bn1(trunk.conv1(images))))
            return self.face.early_loss(trunk.layer3(trunk.layer2(trunk.layer1(stem))), targets)
        outputs = self.network.judge(PixelWindow(pixels.permute(0, 2, 3, 1) * 255, windows))
        loss = GAZE_WEIGHT * pinball(outputs, gaze_angles(targets)[windows[:, WINDOW // 2]])
        return loss + self.face.loss(targets)


@torch.inference_mode()
def errors_of(network: LookingAtMeModel, crops: Renders, windows: Tensor) -> dict[str, Any]:
    """Return the errors on windows of crops of held-out people, in degrees.

    Args:
        network: in evaluation mode.
        crops: N.
        windows: ``(M, 7)`` rows of them.
    """
    normalise = network.backbone.preprocessing.normalise
    features = torch.cat([network.backbone(normalise(part)) for part in crops.images.split(250)])
    outputs = [network.head(Window(features[rows], torch.ones_like(rows).bool())) for rows in windows.split(1000)]
    angles, spread = read_out(torch.cat(outputs))
    targets = crops.targets[windows[:, WINDOW // 2]]
    yaw, pitch = angles.unbind(1)
    true, found = gazes(targets), torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], 1)
    error = degrees_between(found, true)
    guess = functional.normalize(true.mean(0, keepdim=True))
    inside = ((gaze_angles(targets) - angles).abs() < spread).float().mean()
    return {
        "windows": len(windows),
        "median_error_degrees": round(float(np.median(error)), 2),
        "median_error_degrees_of_guessing": round(float(np.median(degrees_between(guess, true))), 2),
        "share_between_the_quantiles": round(float(inside), 3),
        "by_size": {
            size: {"windows": int(chosen.sum()), "median_error_degrees": round(float(np.median(error[chosen])), 2)}
            for size, chosen in by_size(targets)
        },
    }


def write(
    state: Mapping[str, Tensor], size: int, out: Path, facts: Mapping[str, Any], held_out: Mapping[str, Windows]
) -> dict[str, Any]:
    """Write trunk and LSTM as `import --as gaze360` names them, and their errors; return the report.

    Args:
        state: of the network.
        size: side of its input, pixels.
        out: folder.
        facts: about the training.
        held_out: windows of people who are not trained on, by name of the split.
    """
    network = build_network(size, seed=0).eval()
    network.load_state_dict(state)
    report: dict[str, Any] = {"training": {**facts, "size": size}}
    renders = held_out.get("held_out_renders")
    if renders is not None:
        report["median_error_degrees_before_rounding"] = errors_of(network, *renders)["median_error_degrees"]
    file = out / "model.safetensors"
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(NOT_WRITTEN)}
    about = {"backbone": {"type": "gaze_resnet18"}, "kind": "gaze360_renders", "licence": "Apache-2.0"}
    report["sha256"] = write_weights(file, to_int8(kept), {**about, "pretraining": report["training"]})
    network.load_state_dict(read_weights(file)[0], strict=False)
    report |= {name: errors_of(network, *windows) for name, windows in held_out.items()}
    write_json(out / "pretraining.json", report)
    return report


def pretrain(renders: Path, out: Path, schedule: Schedule, size: int = 48, clips: Path | None = None) -> None:
    """Train; write weights and a report every few minutes and at the end.

    Args:
        renders: folder of shards; new shards are read between epochs.
        out: folder for ``model.safetensors`` and ``pretraining.json``. ``training.pt`` beside them lets an interrupted
            training resume; it is deleted at the end.
        schedule: its minutes include earlier runs into the same folder.
        size: side of the network's input, pixels.
        clips: folder in SynthLAM's layout. Its training split is learnt from, its validation split is reported.

    Raises:
        UserError: there are no shards.
    """
    processes = Processes()
    network = build_network(size, schedule.seed)
    preprocessing = network.backbone.preprocessing
    more = partial(load_renders, renders, preprocessing, set(), held_out=False, share=processes.share)
    training = load_training(renders, more)
    face = cast(FaceLayers, network.face)
    face.mean, face.std = training.targets.mean(0), training.targets.std(0).clamp_min(1e-3)
    processes.begin_alike(network)
    moving: Windows | None = None
    about: dict[str, Any] = {"processes": processes.count}
    if clips is not None:
        moving = load_windows(clips, "train", preprocessing)
        about["windows_of_clips"] = len(moving[1])
    held_out = load_held_out(renders, clips, preprocessing) if processes.rank == 0 else {}
    work = GazeResNetTraining(network, schedule, processes, moving)
    run(
        work,
        training,
        more,
        out,
        lambda facts: json.dumps(write(work.average.state, size, out, facts | about, held_out)),
    )


def load_held_out(renders: Path, clips: Path | None, preprocessing: Preprocessing) -> dict[str, Windows]:
    """Read the windows for the report: held-out shards, and the validation split of the clips."""
    held_out = {}
    crops = load_renders(renders, preprocessing, set(), held_out=True)
    if crops is not None:
        held_out["held_out_renders"] = crops, torch.arange(len(crops))[:, None].expand(-1, WINDOW)
    if clips is not None:
        held_out["held_out_clips"] = load_windows(clips, "val", preprocessing)
    return held_out


def card_figures(report: dict[str, Any]) -> Iterator[tuple[str, float, str]]:
    """Yield metric, value and split of the figures in the model's card."""
    for part, split in HELD_OUT.items():
        if part not in report:
            continue
        yield "gaze: median error, degrees", report[part]["median_error_degrees"], split
        guessing = report[part]["median_error_degrees_of_guessing"]
        yield "gaze: median error of guessing the mean, degrees", guessing, split
        for size, errors in report[part]["by_size"].items():
            yield f"gaze: median error, degrees, faces of {size}", errors["median_error_degrees"], split


def card_of(report: dict[str, Any]) -> dict[str, Any]:
    """Return the card of the shipped weights, with what they have seen, from ``pretraining.json``."""
    facts, folder = report["training"], RENDERS.parent.name
    clips = facts.get("windows_of_clips")
    seen = f"{facts['distinct']:,} renders" + (f" and {clips:,} windows of seven frames from clips" if clips else "")
    figures = [
        {"metric": metric, "value": value, "split": split, "source": f"zoo/weights/{folder}/pretraining.json"}
        for metric, value, split in card_figures(report)
    ]
    return {
        "title": "ResNet-18 and LSTM, trained on the gaze of rendered heads",
        "description": "The trunk of GazeLSTM and GazePose, and their LSTM, at the start of a training. It stands in "
        "for Gaze360's weights on SynthLAM: same network, same task, renders in place of photographs. Choose it with "
        "--set init=renders, or for a frozen trunk with --backbone gaze_resnet18 --set backbone.pretrained=renders.",
        "backbone": {"type": "gaze_resnet18", "pretrained": "renders", "size": facts["size"]},
        "head": None,
        "training": "Task: yaw and pitch of the gaze, seen from the camera, and their 10 % and 90 % quantiles, from a "
        f"window of seven crops of {facts['size']} pixels (Gaze360's task and loss). Beside it, as for internvit_nano: "
        f"the renderer's parameters of the face. Seen: {seen}, of people in no split of SynthLAM, drawn by its "
        "renderer; not the label, whether someone looks at the camera. "
        f"{facts['minutes']:g} minutes, {facts['steps']:,} steps in {facts['processes']} process"
        f"{'es' * (facts['processes'] > 1)} on a CPU, from random weights: `python -m tools.pretrain_gaze_resnet`. "
        f"The full report is zoo/weights/{folder}/pretraining.json.",
        "limits": [
            "It was trained on rendered heads only. It is not fit for real faces.",
            "The renderer is that of SynthLAM. Figures of rows that start here say nothing about other data.",
            "The gaze seen from the camera nearly contains the label, as in Gaze360's task. The pretraining of "
            "internvit_nano leaves it out, so heads on the two do not start with the same knowledge.",
            "Its training schedule follows the clock, so a second training gives other bytes.",
        ],
        "weights": [
            {
                "file": f"{folder}/{RENDERS.name}",
                "origin": "shipped",
                "sha256": report["sha256"],
                "licence": "Apache-2.0",
            }
        ],
        "figures": figures,
    }


def main() -> None:
    """Run from the command line."""
    parser = argument_parser(__doc__, minutes=31)
    parser.add_argument("--clips", type=Path, help="folder in SynthLAM's layout to learn from")
    parser.add_argument("--size", type=int, default=48, help="side of the input, pixels (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        schedule = Schedule(args.minutes, LEARNING_RATE, WARM_UP, args.seed)
        pretrain(args.renders, args.out, schedule, args.size, args.clips)
        if args.out.resolve() == RENDERS.parent and os.environ.get("RANK", "0") == "0":
            report = json.loads((args.out / "pretraining.json").read_text(encoding="utf-8"))
            write_json(CARDS / f"{RENDERS.parent.name}.json", card_of(report))
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
