"""Make the README's first picture: what `predict sample` finds, beside the truth.

`python -m tools.make_picture` scores the sample video with gaze_nano_lstm and writes docs/assets/sample_light.png and
sample_dark.png: four moments of the annotated video, and a line per person with the looks found. They are filled where
the person does look and striped where not; looks that were missed are outlined. Needs what `predict` needs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from benchmarks.rows.provenance import HOME
from benchmarks.video.decode import Video
from benchmarks.video.inputs import SAMPLE
from tools.check_video import RATE
from tools.make_sample import FRAMES
from zoo import load_model
from zoo.files.atomic import replacing

FOLDER = HOME / "docs" / "assets"
MODEL = "gaze_nano_lstm"
MOMENTS = (1.2, 4.5, 7.5, 9.6)  # seconds, one per scene
SECONDS = FRAMES // RATE  # of the video
NEAR = 40  # pixels between a track and the true middle of its face
PART = (360, 204)  # pixels of the annotated video that are shown
WIDTH, EDGE, LINE, NAMES, BAR = 1500, 16, 34, 120, 18  # pixels of the picture


class Colours(NamedTuple):
    """Colours of a picture."""

    ground: str
    text: str
    faint: str
    right: str
    wrong: str


COLOURS = {
    "light": Colours("#ffffff", "#1f2328", "#d1d9e0", "#1f6fb2", "#c4501b"),
    "dark": Colours("#0d1117", "#f0f6fc", "#3d444d", "#58a6ff", "#f0883e"),
}

Span = tuple[float, float]  # start and end, seconds


class Person(NamedTuple):
    """A person of the sample.

    Attributes:
        track: name in the annotated video.
        shown: first and last second on screen.
        true: looks, by the renderer's angle.
        found: looks that `predict` found.
        middle: of the face, x and y in pixels of the video.
    """

    track: str
    shown: Span
    true: list[Span]
    found: list[Span]
    middle: tuple[int, int]


def common(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """The parts of spans that are in others too; both in order."""
    both = [(max(a, c), min(b, d)) for a, b in spans for c, d in others]
    return [(a, b) for a, b in both if a < b]


def without(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """The parts of spans that are in none of the others; both in order."""
    edges = [0.0, *(edge for other in others for edge in other), float(SECONDS)]
    return common(spans, list(zip(edges[::2], edges[1::2], strict=True)))


def people_of(out: Path) -> list[Person]:
    """The people of the sample from a finished prediction, by scene and track.

    Raises:
        ValueError: no track is where a person is.
    """
    frames = pd.read_csv(out / "frames.csv", comment="#", dtype={"track": str})
    bouts = pd.read_csv(out / "bouts.csv", comment="#", dtype={"track": str})
    tracks = pd.DataFrame(
        {
            "first": frames.groupby("track")["time"].min(),
            "last": frames.groupby("track")["time"].max(),
            "x": (frames["x1"] + frames["x2"]).groupby(frames["track"]).mean() / 2,
            "y": (frames["y1"] + frames["y2"]).groupby(frames["track"]).mean() / 2,
        }
    )
    scenes = sorted(tracks["first"].unique())
    people = []
    for place, face in enumerate(json.loads(SAMPLE.with_suffix(".json").read_text(encoding="utf-8"))["faces"]):
        x, y = face["middle"]
        of_scene = tracks[tracks["first"] == scenes[place // 2]]
        distances = ((of_scene["x"] - x) ** 2 + (of_scene["y"] - y) ** 2) ** 0.5
        if distances.min() > NEAR:
            raise ValueError(f"no track at {face['track']}: the nearest is {distances.min():.0f} pixels away")
        track = str(distances.idxmin())
        found = bouts.loc[bouts["track"] == track, ["start", "end"]].itertuples(index=False, name=None)
        shown = (float(tracks.loc[track, "first"]), float(tracks.loc[track, "last"]))
        people.append(Person(track, shown, [(a, b) for a, b in face["looks"]], list(found), (x, y)))
    return sorted(people, key=lambda person: (person.shown[0], int(person.track)))


def moments(out: Path, people: Sequence[Person]) -> list[Image.Image]:
    """The parts of the annotated video around the people, at `MOMENTS`."""
    pictures: list[Image.Image] = []
    for frame in Video(out / "annotated.mp4").frames():
        if len(pictures) < len(MOMENTS) and frame.time >= MOMENTS[len(pictures)]:
            whole = Image.fromarray(frame.picture())
            (x1, y1), (x2, y2) = (person.middle for person in people[2 * len(pictures) :][:2])
            left = min(max((x1 + x2 - PART[0]) // 2, 0), whole.width - PART[0])
            top = min(max((y1 + y2 - PART[1]) // 2 - 8, 0), whole.height - PART[1])
            pictures.append(whole.crop((left, top, left + PART[0], top + PART[1])))
    return pictures


def draw(pictures: Sequence[Image.Image], people: Sequence[Person], colours: Colours) -> Image.Image:
    """The picture: moments above, a line per person below, and the legend."""
    top, gap = 2 * EDGE + PART[1], (WIDTH - 2 * EDGE - len(pictures) * PART[0]) // (len(pictures) - 1)
    sheet = Image.new("RGB", (WIDTH, top + (len(people) + 2) * LINE + EDGE), colours.ground)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(19)
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (EDGE + place * (PART[0] + gap), EDGE))

    def across(seconds: float) -> float:
        return NAMES + seconds / SECONDS * (WIDTH - NAMES - 2 * EDGE)

    for line, person in enumerate(people):
        middle = top + (line + 0.5) * LINE
        box = (middle - BAR / 2, middle + BAR / 2)
        pen.text((EDGE, middle), f"person {person.track}", colours.text, font, anchor="lm")
        pen.line((across(person.shown[0]), middle, across(person.shown[1]), middle), colours.faint, 3)
        for kind, spans in looks_by_kind(person).items():
            for start, end in spans:
                bar(sheet, kind, (across(start), box[0], across(end), box[1]), colours)

    # Seconds, and what the bars mean.
    axis = top + (len(people) + 0.3) * LINE
    for second in range(0, SECONDS + 1, 2):
        pen.text((across(second), axis), f"{second} s", colours.text, font, anchor="mm")
    left, axis = NAMES, axis + LINE
    words = {"right": "looks, and found", "wrong": "found, but does not look", "missed": "looks, but missed"}
    for kind, meaning in words.items():
        bar(sheet, kind, (left, axis - BAR / 2, left + 40, axis + BAR / 2), colours)
        pen.text((left + 52, axis), meaning, colours.text, font, anchor="lm")
        left += 90 + round(font.getlength(meaning))
    return sheet


def looks_by_kind(person: Person) -> dict[str, list[Span]]:
    """Parts of a person's looks: right, wrong and missed."""
    return {
        "right": common(person.found, person.true),
        "wrong": without(person.found, person.true),
        "missed": without(common(person.true, [person.shown]), person.found),
    }


def bar(sheet: Image.Image, kind: str, box: tuple[float, float, float, float], colours: Colours) -> None:
    """Draw a look. Kinds differ in pattern, not in colour alone."""
    pen, (left, top, right, bottom) = ImageDraw.Draw(sheet), (round(each) for each in box)
    if kind == "right":
        pen.rectangle((left, top, right, bottom), colours.right)
    elif kind == "missed":
        pen.rectangle((left, top, right, bottom), colours.ground, colours.right, 2)
    else:
        stripes = Image.new("RGB", (right - left + 1, bottom - top + 1), colours.ground)
        lines = ImageDraw.Draw(stripes)
        for start in range(-stripes.height, stripes.width, 8):
            lines.line((start, stripes.height, start + stripes.height, 0), colours.wrong, 3)
        lines.rectangle((0, 0, stripes.width - 1, stripes.height - 1), None, colours.wrong, 2)
        sheet.paste(stripes, (left, top))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.make_picture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        load_model(MODEL).predict("sample", out=out)
        people = people_of(out)
        pictures = moments(out, people)
    for name, colours in COLOURS.items():
        path = FOLDER / f"sample_{name}.png"
        with replacing(path) as temporary:
            draw(pictures, people, colours).quantize(255).save(temporary, "PNG", optimize=True)
        print(path.relative_to(HOME))


if __name__ == "__main__":
    main()
