"""Check `predict` on rendered video with ground truth: SynthLAM's crops pasted back into the frames of their camera.

`python -m tools.check_video --model NAME` makes two minutes of video, runs `predict`, and prints F1 of the bouts, speed
and peak memory. `--boxes` prints where SynthLAM's boxes lie relative to the detector's, and the share of
faces it finds by size. Unknown options are passed to `predict`. The people are those of the test clips, then of the
validation clips; or those in `--data DIR`, from `python -m tools.synthlam clips --seed N --out DIR`. Needs PyAV, OpenCV
and the detector's network.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.data import synthlam
from benchmarks.data.dataset import SynthLAM
from benchmarks.data.ego4d import read_split
from benchmarks.system.progress import plural
from benchmarks.video.bouts import Bout, BoutOptions, bout_f1, bouts_of
from benchmarks.video.detectors.base import iou
from benchmarks.video.detectors.centerface import CenterFace
from benchmarks.video.journal import read_rows
from benchmarks.video.scorer import ScoredFace
from tools.synthlam.scene import FRAME_SIZE, LOOKING_DEG
from tools.synthlam.statistics import SIZE_BINS
from tools.usage import used_by

HOME = Path(__file__).resolve().parent.parent
RATE = round(SynthLAM.rate)  # frames per second
LEAST = 0.2  # minimum overlap of a found box with the true one, which includes more of the head
OVERLAPS = (0.1, 0.25, 0.5)
NO_TRACK = "none"  # stands for the true track of a false bout
EMPTY = 9  # frames without people after each clip
TALL = 40  # pixels; tracks whose faces have a smaller longer side (median) are ignored


def clips_of(split: str, root: Path | None = None) -> list[tuple[str, pd.DataFrame]]:
    """Return the sorted clips of a split with their rows, from SynthLAM or another folder in its layout."""
    table = read_split(root or synthlam.root(), split)
    return [(str(clip), rows) for clip, rows in table.groupby("clip", sort=True)]


def pictures_of(
    rows: pd.DataFrame, size: tuple[int, int] = FRAME_SIZE, root: Path | None = None
) -> Iterator[Image.Image]:
    """Yield the frames of a clip: its crops in place in front of a wall. A missing crop repeats the last one."""
    shipped = root or synthlam.root()
    wall = wall_of(size)
    by_frame: dict[int, pd.DataFrame] = dict(iter(rows.groupby("frame")))  # type: ignore[arg-type]
    last: dict[str, Image.Image] = {}
    for frame in range(min(by_frame), max(by_frame) + 1):
        picture = wall.copy()
        for row in by_frame.get(frame, rows.iloc[:0]).itertuples():
            if row.image:
                last[row.track] = Image.open(shipped / row.image).convert("RGB")
            if row.track in last:
                picture.paste(last[row.track], (max(round(row.x1), 0), max(round(row.y1), 0)))
        yield picture


def wall_of(size: tuple[int, int]) -> Image.Image:
    """Return the background."""
    wall = np.add.outer(np.linspace(150, 90, size[1]), np.linspace(-12, 12, size[0]))
    return Image.fromarray(np.stack([wall, wall * 0.97, wall * 0.92], axis=2).astype(np.uint8))


def make_video(
    path: Path,
    clips: Sequence[tuple[str, pd.DataFrame]],
    frames: int | None = None,
    times: Sequence[int] | None = None,
    root: Path | None = None,
) -> pd.DataFrame:
    """Write clips one after another at SynthLAM's rate. Needs PyAV.

    Args:
        path: an .mp4.
        clips: from `clips_of`.
        frames: maximum number of frames.
        times: of each frame in sixtieths of a second, for a variable frame rate; None for `RATE`.
        root: folder of the clips; None for SynthLAM's.

    Returns:
        The ground truth: frame (from 0), track (unique over the clips), x1, y1, x2, y2, label (the annotators'),
        pictured, gaze_angle (degrees between the gaze and the line to the camera; NaN without a crop).
    """
    import av

    truth, number = [], 0
    known = synthlam.truth(root or synthlam.root())[["clip", "track", "frame", "gaze_angle"]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE if times is None else 60)
        stream.width, stream.height, stream.pix_fmt = *FRAME_SIZE, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "16", "g": "30"}
        for _, rows in clips:
            if number == frames:
                break
            first, start = int(rows["frame"].min()), number
            for picture in itertools.chain(pictures_of(rows, root=root), itertools.repeat(wall_of(FRAME_SIZE), EMPTY)):
                if number == frames:
                    break
                shown = av.VideoFrame.from_image(picture)
                if times is not None:
                    shown.pts, shown.time_base = times[number], Fraction(1, 60)
                container.mux(stream.encode(shown))
                number += 1
            part = rows.merge(known, "left", ["clip", "track", "frame"])
            part = part.assign(frame=part["frame"] - first + start, pictured=part["image"] != "")
            truth.append(part[part["frame"] < number])
        container.mux(stream.encode())
    columns = ["frame", "track", "x1", "y1", "x2", "y2", "label", "pictured", "gaze_angle"]
    return pd.concat(truth)[columns].reset_index(drop=True)


def check_boxes(side: int, clips: int = 20) -> None:
    """Print the edges of SynthLAM's boxes in units of CenterFace's, and the number of faces found by size."""
    detector = CenterFace(side=side)
    edges, found = [], []
    for _, rows in clips_of("train")[:clips]:
        first = int(rows["frame"].min())
        seen_in = dict(iter(rows[rows["image"] != ""].groupby("frame")))
        scale = side / max(FRAME_SIZE)
        for frame, picture in enumerate(pictures_of(rows), start=first):
            if frame not in seen_in or (frame - first) % 10:
                continue
            seen = seen_in[frame]
            small = picture.resize([round(scale * s) for s in FRAME_SIZE], Image.Resampling.BILINEAR)
            faces = detector.detect(np.asarray(small))
            truth = seen[["x1", "y1", "x2", "y2"]].to_numpy() * scale
            overlap = iou(truth, faces.boxes)
            for k, box in enumerate(truth):
                best = int(overlap[k].argmax()) if len(faces.boxes) else -1
                hit = best >= 0 and overlap[k, best] > 0.2
                found.append((max(box[2] - box[0], box[3] - box[1]) / scale, hit))
                if hit:
                    face = faces.boxes[best]
                    middle, sides = (face[:2] + face[2:]) / 2, face[2:] - face[:2]
                    edges.append(np.concatenate([(box[:2] - middle) / sides, (box[2:] - middle) / sides]))
    print("edges:", np.median(edges, axis=0).round(3), "spread:", np.std(edges, axis=0).round(3))
    sizes, hits = np.array(found).T
    for low, high in zip(SIZE_BINS[:-1], SIZE_BINS[1:], strict=True):
        inside = (sizes >= low) & (sizes < high)
        print(f"{low} to {high} px: {int(hits[inside].sum())} of {int(inside.sum())} found")


# -- bouts --------------------------------------------------------------------------------------------------------


def tall_tracks(truth: pd.DataFrame) -> set[str]:
    """Return the tracks whose faces are large enough to count."""
    sides = (truth[["x2", "y2"]].to_numpy() - truth[["x1", "y1"]].to_numpy()).max(axis=1)
    medians = truth.assign(side=sides).groupby("track")["side"].median()
    return set(medians.index[medians >= TALL])


def true_bouts(truth: pd.DataFrame, merge: float, least: float = 0.0) -> list[Bout]:
    """Return the bouts of labels, found like those of scores, in tracks that count; by default none is too short."""
    kept = truth[truth["track"].isin(tall_tracks(truth)) & (truth["label"] >= 0)].sort_values("frame", kind="stable")
    labelled = zip(kept["frame"].tolist(), kept["track"], kept["label"].tolist(), strict=True)
    rows = (ScoredFace(frame / RATE, frame, track, np.zeros(4), label) for frame, track, label in labelled)
    return bouts_of(rows, 1 / RATE, BoutOptions(0.5, least, merge))


def of_the_gaze(truth: pd.DataFrame) -> pd.DataFrame:
    """Replace the labels by the renderer's: whether the gaze meets the camera.

    The labels simulate annotators, who misjudge gazes, more so for small faces, and shift the ends of looks.
    """
    seen = truth[truth["gaze_angle"].notna()]
    return seen.assign(label=(seen["gaze_angle"] < LOOKING_DEG).astype(int))


def found_bouts(rows: Sequence[ScoredFace], truth: pd.DataFrame, bouts: Sequence[Bout]) -> list[Bout]:
    """Assign each bout of a run to the true track that most of its boxes overlap.

    Bouts of tracks that do not count are dropped; bouts without a true track stay and count as false.
    """
    by_frame = dict(iter(truth.groupby("frame")))
    whose: dict[tuple[str, int], str] = {}
    for row in rows:
        if (here := by_frame.get(row.frame)) is not None:
            overlap = iou(row.box[None], here[["x1", "y1", "x2", "y2"]].to_numpy())[0]
            if overlap.max() >= LEAST:
                whose[row.track, row.frame] = here["track"].iloc[int(overlap.argmax())]
    tall, out = tall_tracks(truth), []
    for bout in bouts:
        frames = range(round(bout.start * RATE), round(bout.end * RATE))
        track = Counter(whose.get((bout.track, frame), NO_TRACK) for frame in frames).most_common(1)[0][0]
        if track in tall or track == NO_TRACK:
            out.append(bout._replace(track=track))
    return out


def report(out: Path, truth: pd.DataFrame) -> None:
    """Print F1 of a run's bouts against the annotators' labels and against the gazes."""
    options = BoutOptions(**json.loads((out / "run.json").read_text(encoding="utf-8"))["bouts"])
    rows = list(read_rows(out / "frames.csv"))
    gazes = of_the_gaze(truth)
    trues = {
        "labels": true_bouts(truth, options.merge),
        "gazes": true_bouts(gazes, options.merge, options.least),
    }
    agree = ", ".join(f"F1@{round(100 * o)} {bout_f1(trues['labels'], trues['gazes'], o):.3f}" for o in OVERLAPS)
    print(f"gazes against labels: {agree}")
    for threshold in sorted({*np.arange(0.3, 0.96, 0.05).round(2).tolist(), options.threshold}):
        found = found_bouts(rows, truth, bouts_of(rows, 1 / RATE, replace(options, threshold=threshold)))
        parts = []
        for name, true in trues.items():
            figures = ", ".join(f"F1@{round(100 * o)} {bout_f1(true, found, o):.3f}" for o in OVERLAPS)
            parts.append(f"{len(true)} {name}: {figures}")
        mark = " <- as run" if threshold == options.threshold else ""
        print(f"threshold {threshold:.2f}: {plural(len(found), 'bout')}; {'; '.join(parts)}{mark}")
    share, count = share_scored(rows, truth)
    print(f"faces of {TALL} px or more with a score: {share:.3f} of {count}")


def share_scored(rows: Sequence[ScoredFace], truth: pd.DataFrame) -> tuple[float, int]:
    """Return the share of visible faces with a row, in tracks that count, and the number of these faces."""
    tall = truth[truth["track"].isin(tall_tracks(truth)) & truth["pictured"]]
    by_frame: dict[int, list[np.ndarray]] = {}
    for row in rows:
        by_frame.setdefault(row.frame, []).append(row.box)
    seen = [
        frame in by_frame and iou(np.array([box]), np.array(by_frame[frame])).max() >= LEAST
        for frame, *box in tall[["frame", "x1", "y1", "x2", "y2"]].to_numpy().tolist()
    ]
    return float(np.mean(seen)), len(seen)


def run_predict(video: Path, out: Path, arguments: Sequence[str]) -> None:
    """Run `predict` in a new process and print its speed and peak memory."""
    before = time.monotonic()
    command = [sys.executable, str(HOME / "bench.py"), "predict", str(video), "-o", str(out), *arguments]
    _, memory = used_by(command, cwd=HOME)
    seconds = time.monotonic() - before
    frames = json.loads((out / "run.json").read_text(encoding="utf-8"))["facts"]["frames"]
    print(f"{frames} frames in {seconds:.1f} s: {frames / seconds:.1f} per second; peak memory {memory:.0f} MB")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.check_video", description=__doc__)
    parser.add_argument("--boxes", action="store_true", help="check only the detector")
    parser.add_argument("-o", "--out", type=Path, help="folder that keeps the video and the results")
    parser.add_argument("--split", default="test", choices=("test", "val"), help="split whose people come first")
    parser.add_argument("--data", type=Path, help="folder of other clips in SynthLAM's layout")
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the video")
    parser.add_argument("--side", type=int, default=1280, help="pixels of the detector's longer side, with --boxes")
    args, arguments = parser.parse_known_args()
    if args.boxes:
        check_boxes(args.side)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        video, truth = folder / "rendered.mp4", folder / "truth.csv"
        if not truth.exists():
            first, second = ("test", "val") if args.split == "test" else ("val", "test")
            clips = [*clips_of(first, args.data), *clips_of(second, args.data)]
            make_video(video, clips, round(args.seconds * RATE), root=args.data).to_csv(truth, index=False)
        run_predict(video, folder / "predicted", arguments)
        report(folder / "predicted", pd.read_csv(truth))


if __name__ == "__main__":
    main()
