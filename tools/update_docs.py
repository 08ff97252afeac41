"""Take finished runs into the committed records, and render the README's table and picture from them.

example:
  python bench.py --recipe all --seeds 3 && python -m tools.update_docs --out runs
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from benchmarks.data.synthlam import root
from benchmarks.results import HOME, read_result
from benchmarks.table import RECORDS, as_text
from zoo.files import write_json, write_text

README = HOME / "README.md"
PICTURE = HOME / "docs" / "assets" / "crops.png"
BEGIN, END = "<!-- table: rendered by tools/update_docs.py -->", "<!-- end of table -->"

PICTURED = "internlstm_flip_tta"
SIZES = ((20, 27), (28, 36), (37, 45), (46, 58), (59, 112))  # pixels, the shorter side; two columns each
TILE = 128


def update_records(out: Path) -> list[Path]:
    """Copy the results of unchanged recipes into `benchmarks/records/<dataset>/`."""
    written = []
    for path in sorted(out.glob("results/*/*/result.json")):
        result = read_result(path)
        if not result["config"]["changes"]:
            written.append(RECORDS / result["dataset"]["name"] / f"{result['name']}.json")
            write_json(written[-1], result)
    return written


def render_readme(text: str) -> str:
    """The README with the table of the committed records between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{as_text(None)}\n\n{END}{after}"


def picture(predictions: pd.DataFrame, crops: Path) -> Image.Image:
    """Test crops with the score that each was given: looking above, not looking below, growing from left to right.

    Args:
        predictions: rows of `predictions.csv`, of the test split and one seed.
        crops: the dataset's root.
    """
    random = np.random.default_rng(7)
    images = predictions["clip"] + "/" + predictions["track"] + "/" + predictions["frame"].map("{:05d}".format)
    images = "videos_challenge/" + images + "_" + predictions["unique_id"] + ".jpg"
    width, height = predictions["x2"] - predictions["x1"], predictions["y2"] - predictions["y1"]
    side = width.where(width < height, height)
    font = ImageFont.load_default(14)
    sheet = Image.new("RGB", (2 * len(SIZES) * TILE, 2 * (TILE + 20)), "white")
    for row, label in enumerate((1, 0)):
        taken: set[str] = set()
        for column, (low, high) in enumerate(size for size in SIZES for _ in range(2)):
            fits = (predictions["label"] == label) & side.between(low, high) & ~predictions["track"].isin(taken)
            chosen = random.choice(np.flatnonzero(fits))
            taken.add(predictions["track"].iloc[chosen])
            crop = Image.open(crops / images.iloc[chosen])
            scale = min((TILE - 4) / crop.width, (TILE - 4) / crop.height)
            tile = crop.resize((round(crop.width * scale), round(crop.height * scale)), Image.Resampling.BICUBIC)
            left, top = column * TILE, row * (TILE + 20)
            sheet.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
            words = f"{predictions['score'].iloc[chosen]:.2f}  ({crop.width} px)"
            ImageDraw.Draw(sheet).text((left + TILE / 2, top + TILE + 9), words, "black", font, anchor="mm")
    return sheet


def main() -> None:
    """Update records, README and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs (default runs)")
    out = parser.parse_args().out
    for path in update_records(out):
        print(path.relative_to(HOME))
    write_text(README, render_readme(README.read_text(encoding="utf-8")))
    folder = out / "results" / "synthlam" / PICTURED
    predictions = pd.read_csv(folder / "predictions.csv", dtype={"clip": str, "track": str, "unique_id": str})
    seed = json.loads((folder / "result.json").read_text(encoding="utf-8"))["seeds"][0]
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    own = predictions[(predictions["split"] == "test") & (predictions["seed"] == seed)].reset_index(drop=True)
    picture(own, root()).save(PICTURE, optimize=True)
    print(PICTURE.relative_to(HOME))


if __name__ == "__main__":
    main()
