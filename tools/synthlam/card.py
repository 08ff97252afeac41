"""The data card of SynthLAM, with every number computed from the archive."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.data import synthlam
from benchmarks.data.ego4d import SPLITS
from tools.synthlam import scene
from tools.synthlam.dataset import NAME
from tools.synthlam.filming import MAX_SIDE
from tools.synthlam.identity import SQUINT
from tools.synthlam.statistics import GAZE_BINS, SIZE_BINS, YAW_BINS, statistics


def _span(pair: Iterable[float]) -> str:
    return " to ".join(f"{v:g}" for v in pair)


def write_card(folder: Path) -> None:
    """Write `folder/README.md` from its template, with every number computed from the archive."""
    record = json.loads((folder / f"{NAME}.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "synthlam"
        synthlam.unpack(folder / f"{NAME}.tar.xz", root, record["sha256"])
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
        seconds=_span(scene.SECONDS),
        squint=f"{100 * SQUINT:g}",
        head_share=_span([100 * v for v in scene.HEAD_SHARE]),
        eye_yaw=f"{math.degrees(scene.EYE_YAW):g}",
        max_side=MAX_SIDE,
        confusion_px=scene.CONFUSION_PX,
    )
    text = (Path(__file__).with_name("card.md")).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", str(value))
    (folder / "README.md").write_text(text, encoding="utf-8")
