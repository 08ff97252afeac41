"""Make SynthLAM: render its clips, write the archive that ships, and the data card.

    python -m tools.synthlam --out benchmarks/data/synthlam --seed 1 --workers 2
    python -m tools.synthlam card
    python -m tools.synthlam pretraining --count 60000 --seed 1 --out RENDERS --workers 2
    python -m tools.synthlam clips --seed 2 --times 5 --out CLIPS --workers 2

`clips` writes more training clips, of other people, as a folder for `--dataset synthlam --root CLIPS`; a backbone
learns more from a few frames of many clips (`--times 16 --every 5`). All but `card` need the extra `synth`; the data
set takes about 15 minutes on one core. The archive is reproducible with the same seed, machine and versions; other
graphics drivers round pixels differently.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import math
import multiprocessing
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.data import synthlam
from benchmarks.data.ego4d import SPLITS
from tools.synthlam import scene
from tools.synthlam.clips import MAX_SIDE, Crop, plan, render_clip
from tools.synthlam.pretraining import render_pretraining
from tools.synthlam.statistics import GAZE_BINS, SIZE_BINS, YAW_BINS, statistics

TRUTH = [
    "gaze_angle",
    "gaze_yaw",
    "gaze_pitch",
    "head_yaw",
    "head_pitch",
    "head_roll",
    "eye_yaw",
    "eye_pitch",
    "blink",
    "distance",
    "occluded",
    "motion",
]


def make_files(seed: int, workers: int, times: int = 1, every: int = 1) -> dict[str, bytes]:
    """Render the whole data set; return path -> content.

    Args:
        seed: of people, clips and pixels.
        workers: processes.
        times: multiplies the number of training clips.
        every: renders every n-th frame of a training clip.

    Raises:
        ValueError: seed, times or every is out of range.
    """
    if every < 1:
        raise ValueError(f"every {every}: must be 1 or more")
    files: dict[str, bytes] = {}
    truth = [
        ",".join(["split", "clip", "track", "frame", "person", "identity", "image", "width", "height", "label", *TRUTH])
    ]
    poses: dict[str, list[float]] = {}
    marks: dict[str, dict[str, dict[str, list[list[float]]]]] = {}
    labels = ["clip,track,frame,unique_id,person,x1,y1,x2,y2,label"]
    videos: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    jobs = [
        (clip, split, every if split == "train" else 1) for split, clips in plan(seed, times).items() for clip in clips
    ]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for done, ((clip, split, _), rows) in enumerate(zip(jobs, pool.imap(render_job, jobs), strict=True)):
            print(f"{done + 1}/{len(jobs)} {clip.name}: {len(rows)} rows", flush=True)
            identities = {person.name: person.identity for person in clip.people}
            for row in rows:
                x, y, w, h = row.box
                key = f"{clip.name}:{row.track}:{row.frame}"
                if split == "test":
                    unique = hashlib.sha256(key.encode()).hexdigest()[:8]
                    path = f"videos_challenge/{clip.name}/{row.track}/{row.frame:05d}_{unique}.jpg"
                    labels.append(
                        f"{clip.name},{row.track},{row.frame},{unique},{row.person},"
                        f"{x:.3f},{y:.3f},{x + w:.3f},{y + h:.3f},{row.label}"
                    )
                else:
                    path = f"face_imgs/{clip.name}/{row.track}/face_{row.frame:05d}.jpg"
                if row.head_pose is not None:
                    poses[key] = row.head_pose
                if row.landmarks is not None:
                    marks.setdefault(clip.name, {}).setdefault(row.track, {})[str(row.frame)] = row.landmarks
                if row.jpeg is None:
                    continue
                files[path] = row.jpeg
                width, height = Image.open(io.BytesIO(row.jpeg)).size
                known = [f"{row.truth[name]:g}" for name in TRUTH]
                identity = f"{split}_{identities[row.person]:05d}"
                truth.append(
                    ",".join(
                        [
                            split,
                            clip.name,
                            row.track,
                            str(row.frame),
                            row.person,
                            identity,
                            path,
                            str(width),
                            str(height),
                            str(row.label),
                            *known,
                        ]
                    )
                )
            if split != "test":
                _annotate(files, videos[split], clip, rows)
    for split, listed in videos.items():
        files[f"json/av_{split}.json"] = _json({"version": "v1", "split": split, "videos": listed})
        names = [clip["clip_uid"] for video in listed for clip in video["clips"]]
        files[f"split/{split}.list"] = ("\n".join(names) + "\n").encode()
    files["labels_challenge.csv"] = ("\n".join(labels) + "\n").encode()
    files["truth.csv"] = ("\n".join(truth) + "\n").encode()
    files["priors/head_pose.json"] = _json(poses)
    files["priors/landmarks.json"] = _json(marks)
    files["scene.json"] = _json(
        dict(
            frames_per_second=scene.RATE,
            frame_size=scene.FRAME_SIZE,
            focal_pixels=scene.FOCAL,
            looking_within_degrees=scene.LOOKING_DEG,
            seed=seed,
        )
    )
    return files


def render_job(job: tuple[scene.Clip, str, int]) -> list[Crop]:
    """Render one clip; `job` holds the arguments of `render_clip`."""
    return render_clip(*job)


def _json(value: Any) -> bytes:
    return (json.dumps(value, separators=(",", ":")) + "\n").encode()


def _annotate(files: dict[str, bytes], videos: list[dict[str, Any]], clip: scene.Clip, rows: list[Crop]) -> None:
    """Add Ego4D's annotations of one clip, raw and prepared."""
    tracks: dict[str, list[Crop]] = {}
    for row in rows:
        tracks.setdefault(row.track, []).append(row)
    persons: list[dict[str, Any]] = [dict(person_id="0", camera_wearer=True, tracking_paths=[])]
    for person in clip.people:
        paths = [
            dict(
                track_id=track,
                track=[
                    dict(zip(("frame", "x", "y", "width", "height"), (r.frame, *_round(r.box)), strict=True))
                    for r in listed
                ],
            )
            for track, listed in tracks.items()
            if listed[0].person == person.name
        ]
        persons.append(dict(person_id=person.name, tracking_paths=paths))
    looks = [
        dict(person=person.name, start_frame=clip.first_frame + a, end_frame=clip.first_frame + b, target="0")
        for person in clip.people
        for a, b in person.segments
    ]
    entry = dict(
        clip_uid=clip.name, video_start_sec=0.0, video_end_sec=300.0, persons=persons, social_segments_looking=looks
    )
    videos.append(dict(video_uid=f"video_{clip.name}", clips=[entry]))
    for track, listed in tracks.items():
        prepared = []
        for r in listed:
            x, y, w, h = _round(r.box)
            prepared.append(
                {
                    "clip_uid": clip.name,
                    "frameNumber": r.frame,
                    "Person ID": r.person,
                    "x": x,
                    "y": y,
                    "height": h,
                    "width": w,
                }
            )
        files[f"json_original/{clip.name}/{track}.json"] = _json(prepared)
    files[f"result_LAM/{clip.name}.json"] = _json(
        [dict(label=look["person"], start_frame=look["start_frame"], end_frame=look["end_frame"]) for look in looks]
    )


def _round(box: tuple[float, float, float, float]) -> list[float]:
    return [round(v, 3) for v in box]


def pack(files: dict[str, bytes]) -> bytes:
    """Pack the files into an xz-compressed tar; uncompressed, a third of it would be headers of small files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(files):
            info = tarfile.TarInfo(path)
            info.size = len(files[path])
            tar.addfile(info, io.BytesIO(files[path]))
    return lzma.compress(buffer.getvalue(), preset=6)


def _span(pair: Iterable[float]) -> str:
    return " to ".join(f"{v:g}" for v in pair)


def write_card(folder: Path) -> None:
    """Write `folder/README.md` from its template, with every number computed from the archive."""
    record = json.loads((folder / "synthlam-1.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "synthlam"
        synthlam.unpack(folder / "synthlam-1.tar.xz", root, record["sha256"])
        stats = statistics(root)
        setup = json.loads((root / "scene.json").read_text(encoding="utf-8"))
    rows = {
        "clips": "clips",
        "tracks": "tracks",
        "identities": "people, none in two splits",
        "crops": "crops",
        "rows": "annotated frames, absent ones between the first and last of a track included",
        "rows_without_crop": "of these without a crop",
        "looks": "looks",
        "look_median": "frames of a look, median",
        "gaps": "gaps in tracks",
        "gap_median": "frames of a gap, median",
        "gap_longest": "frames of the longest gap",
    }

    def table(head: list[str], lines: list[list[str]]) -> str:
        return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])

    def percent(value: float) -> str:
        return f"{100 * value:.1f} %"

    head = ["", *SPLITS]
    counts = [[text, *(f"{stats[s][name]:g}" for s in SPLITS)] for name, text in rows.items()]
    counts.append(["looking, share of annotated frames", *(percent(stats[s]["positive_rate"]) for s in SPLITS)])
    counts.append(["looking, share of crops", *(percent(stats[s]["positive_rate_of_crops"]) for s in SPLITS)])
    counts.append(["eyes shut by half or more", *(percent(stats[s]["blinking"]) for s in SPLITS)])
    counts.append(["face behind something", *(percent(stats[s]["occluded"]) for s in SPLITS)])
    sides = [" / ".join(f"{v:g}" for v in stats[s]["side_percentiles"]) for s in SPLITS]
    counts.append(["larger side, pixels (5, 25, 50, 75, 95 %)", *sides])
    histograms = []
    for name, bins, unit in (
        ("gaze_angle", GAZE_BINS, "°"),
        ("head_yaw", YAW_BINS, "°"),
        ("crop_side", SIZE_BINS, " px"),
    ):
        lines = [
            [
                f"{low} to {high}{unit}",
                *(f"{percent(stats[s][name][k])} {'█' * round(40 * stats[s][name][k])}" for s in SPLITS),
            ]
            for k, (low, high) in enumerate(zip(bins[:-1], bins[1:], strict=True))
        ]
        histograms.append(table(head, lines))
    oracles = [
        [text, *(" / ".join(f"{100 * v:.1f}" for v in stats[s][name]) for s in SPLITS)]
        for name, text in (
            ("true_gaze", "true angle between gaze and camera"),
            ("true_head_pose", "true angle between head and camera"),
        )
    ]
    setup["frame_size"] = " x ".join(str(v) for v in setup["frame_size"])
    values = dict(
        record,
        **setup,
        counts=table(head, counts),
        gaze=histograms[0],
        yaw=histograms[1],
        side=histograms[2],
        oracles=table(head, oracles),
        megabytes=f"{record['bytes'] / 1e6:.1f}",
        confusion=scene.CONFUSION_DEG,
        near=_span(scene.NEAR_DEG),
        fixation=_span(scene.FIXATION),
        head_share=_span([100 * v for v in scene.HEAD_SHARE]),
        eye_yaw=f"{math.degrees(scene.EYE_YAW):g}",
        max_side=MAX_SIDE,
        confusion_px=scene.CONFUSION_PX,
    )
    text = (Path(__file__).with_name("card.md")).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", str(value))
    (folder / "README.md").write_text(text, encoding="utf-8")


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide the pixels."""
    from importlib.metadata import version

    return {name: version(name) for name in ("anny", "pyvista", "vtk", "numpy", "opencv-python-headless")}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.synthlam", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="?", default="dataset", choices=("dataset", "card", "pretraining", "clips"))
    parser.add_argument("--out", type=Path, default=synthlam.ARCHIVE.parent, help="folder to write to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60_000, help="pretraining: number of crops")
    parser.add_argument("--times", type=int, default=1, help="clips: multiply SynthLAM's number of training clips")
    parser.add_argument("--every", type=int, default=1, help="clips: render every n-th training frame")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "pretraining":
        render_pretraining(args.count, args.seed, args.out, args.workers)
        return
    if args.what == "clips":
        for name, content in make_files(args.seed, args.workers, args.times, args.every).items():
            path = args.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return
    if args.what == "dataset":
        files = make_files(args.seed, args.workers)
        content = pack(files)
        record = dict(
            archive="synthlam-1.tar.xz",
            sha256=hashlib.sha256(content).hexdigest(),
            bytes=len(content),
            files=len(files),
            crops=sum(path.endswith(".jpg") for path in files),
            seed=args.seed,
            made_with=versions(),
        )
        (args.out / "synthlam-1.tar.xz").write_bytes(content)
        (args.out / "synthlam-1.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_card(args.out)


if __name__ == "__main__":
    main()
