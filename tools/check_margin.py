"""Measure how far SynthLAM's crops extend beyond a face detector's box: the margins that `export` gives its models.

    python -m tools.check_margin [--crops 250] [--detector centerface]

Each crop (train split, at least 45 pixels) is padded with its edge pixels, so that the detector may return a larger
box, and resized to the size at which `predict` searches. The figures are over the crops in which a face is found.
"""

import argparse

import numpy as np
from PIL import Image

from benchmarks.data.dataset import SynthLAM
from benchmarks.video.search import FACE
from registry import DETECTORS

SIDE = 3 * FACE  # pixels of the longer padded side; the crop fills half of it, the face a third
BORDER = 0.5  # padding, in longer sides of the crop


def main() -> None:
    """Print the margin on each side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=int, default=250)
    parser.add_argument("--detector", default="centerface")
    args = parser.parse_args()
    dataset = SynthLAM()
    table = dataset.frames("train")
    large = np.maximum(table["x2"] - table["x1"], table["y2"] - table["y1"]) >= 45
    images = table[large & (table["image"] != "")]["image"].to_numpy()
    images = images[np.linspace(0, len(images) - 1, min(args.crops, len(images))).astype(int)]
    detector = DETECTORS.build({"type": args.detector})
    sides = []
    for image in images:
        crop = np.asarray(Image.open(dataset.root / image).convert("RGB"))
        height, width = crop.shape[:2]
        border = int(BORDER * max(height, width))
        picture = Image.fromarray(np.pad(crop, ((border, border), (border, border), (0, 0)), mode="edge"))
        scale = SIDE / max(picture.size)
        size = (round(scale * picture.width), round(scale * picture.height))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
        boxes = detector.detect(np.asarray(picture)).boxes
        if len(boxes):
            left, top, right, bottom = boxes[0] / scale - border
            across, down = right - left, bottom - top
            sides.append([left / across, top / down, (width - right) / across, (height - bottom) / down])
    found = np.array(sides)
    print(f"{len(found)} faces found in {len(images)} crops; margins of the crops around the box, in its sides:")
    for name, of_side in zip(("left", "top", "right", "bottom"), found.T, strict=True):
        low, middle, high = np.percentile(of_side, [25, 50, 75])
        print(f"  {name:<6} median {middle:.2f}, quartiles {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
