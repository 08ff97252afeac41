"""Fit the layer of gaze_nano that reframes a detector's crops like its training crops.

    python -m tools.fit_framing

A detector's box holds the face, SynthLAM's holds the whole head: if the head is turned, a fixed margin misplaces the
crop. The network's outputs for the misplaced crop tell by how much. SynthLAM's training clips are pasted back into the
frames of their camera, faces are found and tracked as in `predict`, and ridge regression fits a linear layer from these
outputs to the offset from the true crop. Its weights replace those in zoo/weights/gaze_nano; all others stay. The
printed errors are cross-validated over clips.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from backbones.base import Preprocessing
from backbones.gaze_nano import FOLDER, GazeNano
from benchmarks.data.dataset import SynthLAM
from benchmarks.video.decode import Video
from benchmarks.video.detectors.base import iou
from benchmarks.video.faces import EDGES
from benchmarks.video.journal import Journal
from benchmarks.video.scorer import cut, widened
from benchmarks.video.search import FaceSource, frames_with_faces
from benchmarks.video.track import Tracker
from registry import DETECTORS
from tools.check_video import LEAST, clips_of, make_video
from tools.pretrain_gaze import card_figures
from tools.pretraining.loop import update_card
from zoo.cards import FOLDER as CARDS
from zoo.files.atomic import write_json
from zoo.models import four_sides
from zoo.weights import read_weights, write_weights

RATE = 2.5  # whole frames searched per second, the default of `predict`
SMALL = 8  # pixels; smaller true boxes are ignored
STRENGTH = 30.0  # ridge penalty, for standardised inputs


def crops_of(
    video: Path, truth: pd.DataFrame, detector: str, preprocessing: Preprocessing
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Cut crops like `predict`, with their true boxes.

    Args:
        video: file from `make_video`.
        truth: table from `make_video`.
        detector: name.
        preprocessing: of the backbone.

    Returns:
        ``(N, S, S, 3)`` pixels; ``(N, 4)`` edges of the crops; ``(N, 4)`` edges of the true boxes; N tracks.
    """
    by_frame = dict(iter(truth[truth["pictured"]].groupby("frame")))
    margin = four_sides(SynthLAM.margin)
    pixels, crops, boxes, whose = [], [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        source = FaceSource(DETECTORS.build({"type": detector}), RATE)
        tracker, journal = Tracker(), Journal(Path(scratch) / "seen.jsonl")
        for frame, faces in frames_with_faces(Video(video), source, journal, tracker, -math.inf):
            for tracked in tracker.place(frame, faces):
                here = by_frame.get(tracked.frame.number)
                if here is None or not len(tracked.boxes):
                    continue
                picture, trues = tracked.frame.picture(), here[EDGES].to_numpy()
                for box, overlap in zip(tracked.boxes, iou(tracked.boxes, trues), strict=True):
                    best = int(overlap.argmax())
                    true, rect = trues[best], widened(box, margin)
                    crop = cut(picture, rect)
                    if overlap[best] >= LEAST and crop is not None and (true[2:] - true[:2]).min() >= SMALL:
                        pixels.append(preprocessing.resize_crop(crop))
                        crops.append(rect)
                        boxes.append(true)
                        whose.append(str(here["track"].iloc[best]))
        journal.close()
    return np.stack(pixels), np.stack(crops), np.stack(boxes), whose


def off(crops: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the moves ``(N, 4)`` from crops to boxes ``(N, 4)``, in the units of `Backbone.reframe`."""
    sides = crops[:, 2:] - crops[:, :2]
    middle = (boxes[:, :2] + boxes[:, 2:] - crops[:, :2] - crops[:, 2:]) / 2
    return np.concatenate([middle / sides, np.log((boxes[:, 2:] - boxes[:, :2]) / sides)], axis=1)


def fit(known: np.ndarray, wanted: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a ridge regression.

    Args:
        known: ``(N, K)`` inputs.
        wanted: ``(N, M)`` outputs.
        groups: N names; the residuals are cross-validated over groups.

    Returns:
        ``(M, K)`` weights, ``(M,)`` bias and ``(N, M)`` residuals.
    """
    regression = make_pipeline(StandardScaler(), Ridge(alpha=STRENGTH))
    left = wanted - cross_val_predict(regression, known, wanted, groups=groups, cv=GroupKFold(8))
    scaler, ridge = (step for _, step in regression.fit(known, wanted).steps)
    weight = ridge.coef_ / scaler.scale_
    return weight, ridge.intercept_ - weight @ scaler.mean_, left


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="centerface")
    parser.add_argument("--clips", type=int, default=62, help="of SynthLAM's training split (default: all)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the weights (default: %(default)s)")
    args = parser.parse_args()
    backbone = GazeNano()
    with tempfile.TemporaryDirectory() as scratch:
        video = Path(scratch) / "rendered.mp4"
        truth = make_video(video, clips_of("train")[: args.clips])
        pixels, crops, boxes, whose = crops_of(video, truth, args.detector, backbone.preprocessing)
    with torch.inference_mode():
        known = backbone.known(backbone.encoder("cpu")(torch.from_numpy(pixels))).numpy()
    wanted = off(crops, boxes)
    weight, bias, left = fit(known, wanted, [track.split("_person")[0] for track in whose])
    about = {
        "crops": len(wanted),
        "clips": args.clips,
        "off": wanted.std(axis=0).round(3).tolist(),
        "left": left.std(axis=0).round(3).tolist(),
    }
    print(f"{len(wanted)} crops; standard deviations of x, y, log width and log height")
    print(f"before: {about['off']}; after reframing, cross-validated over clips: {about['left']}")
    state, words = read_weights(FOLDER / "model.safetensors")
    state["framing.weight"] = torch.from_numpy(weight).float()
    state["framing.bias"] = torch.from_numpy(bias).float()
    report = json.loads((FOLDER / "pretraining.json").read_text(encoding="utf-8"))
    report["sha256"] = write_weights(args.out / "model.safetensors", state, words | {"framing": about})
    write_json(args.out / "pretraining.json", report | {"framing": about})
    if args.out.resolve() == FOLDER:
        update_card(CARDS / "gaze_nano.json", report, card_figures(report))


if __name__ == "__main__":
    main()
