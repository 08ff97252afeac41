"""Writes bouts as a table (CSV), as subtitles (WebVTT) and as annotations for ELAN (EAF 3.0); and a table of tracks."""

from __future__ import annotations

import csv
import io
import mimetypes
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from benchmarks.video.bouts import Bout
from benchmarks.video.decode import Video
from benchmarks.video.journal import COMMENT
from benchmarks.video.people import Person
from registry import printable
from zoo.files.atomic import write_text

SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"


def write_bouts(path: Path, bouts: Sequence[Bout], header: Sequence[str]) -> None:
    """Writes a CSV of bouts: track, start, end, duration (seconds), score (mean)."""
    rows = []
    for bout in bouts:
        times = (bout.start, bout.end, bout.end - bout.start)
        rows.append([bout.track, *(f"{time:.6f}" for time in times), f"{bout.score:.6f}"])
    _write_table(path, header, ["track", "start", "end", "duration", "score"], rows)


def write_people(path: Path, people: Sequence[Person], header: Sequence[str]) -> None:
    """Writes a CSV with one line per track; the columns are the attributes of `Person`."""
    rows = []
    for one in people:
        size = (f"{one.mean_width:.2f}", f"{one.mean_height:.2f}")
        times = (f"{time:.6f}" for time in (one.seconds_on_screen, one.first, one.last))
        looks = (f"{one.looking_seconds:.6f}", one.looks, f"{one.looks_per_minute:.4f}")
        rows.append([one.track, *looks, *times, *size])
    _write_table(path, header, Person._fields, rows)


def _write_table(path: Path, header: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    text.writelines(f"{COMMENT}{printable(line)}\n" for line in header)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_vtt(path: Path, bouts: Sequence[Bout], header: Sequence[str]) -> None:
    """Writes subtitles for any player: who looks, and the mean score."""
    blocks = ["WEBVTT", "NOTE\n" + "\n".join(printable(line).replace("-->", "->") for line in header)]
    for bout in bouts:
        track = printable(bout.track).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        cue = f"{_clock(bout.start)} --> {_clock(bout.end)}"
        blocks.append(f"{cue}\n{track} looks ({bout.score:.2f})")
    write_text(path, "\n\n".join(blocks) + "\n")


def _clock(seconds: float) -> str:
    """Formats a time for WebVTT: hours, minutes, seconds and milliseconds."""
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def write_eaf(path: Path, bouts: Sequence[Bout], header: Sequence[str], tracks: Sequence[str], video: Video) -> None:
    """Writes annotations for ELAN: one tier per track, one annotation per bout, linked to the video.

    The link is double: where the video is, and the way there from the file's own folder. ELAN tries both, so the two
    can be moved together.

    Elements and their order follow the schema of EAF 3.0. The date is the video's, so equal results give equal bytes.
    """
    made = datetime.fromtimestamp(int(video.path.stat().st_mtime), tz=timezone.utc)
    document = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "lamzoo",
            "DATE": made.isoformat(),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": SCHEMA,
        },
    )
    head = ElementTree.SubElement(document, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    file = video.path.resolve()
    media = {"MEDIA_URL": file.as_uri(), "MIME_TYPE": mimetypes.guess_type(file.name)[0] or "video/*"}
    if (relative := relative_url(file, path.parent)) is not None:
        media["RELATIVE_MEDIA_URL"] = relative
    ElementTree.SubElement(head, "MEDIA_DESCRIPTOR", media)
    for number, line in enumerate(header):
        ElementTree.SubElement(head, "PROPERTY", {"NAME": f"lamzoo.{number}"}).text = printable(line)
    order = ElementTree.SubElement(document, "TIME_ORDER")
    tiers = {
        track: ElementTree.SubElement(
            document, "TIER", {"LINGUISTIC_TYPE_REF": "looking", "TIER_ID": f"looking: {shown}", "PARTICIPANT": shown}
        )
        for track, shown in zip(tracks, map(printable, tracks), strict=True)
    }
    times = sorted(
        (round(1000 * time), number, end) for number, b in enumerate(bouts) for end, time in enumerate(b[1:3])
    )
    slots = {}
    for place, (time, number, end) in enumerate(times, start=1):
        slots[number, end] = f"ts{place}"
        ElementTree.SubElement(order, "TIME_SLOT", {"TIME_SLOT_ID": f"ts{place}", "TIME_VALUE": str(time)})
    for number, bout in enumerate(bouts):
        annotation = ElementTree.SubElement(
            ElementTree.SubElement(tiers[bout.track], "ANNOTATION"), "ALIGNABLE_ANNOTATION"
        )
        annotation.set("ANNOTATION_ID", f"a{number + 1}")
        annotation.set("TIME_SLOT_REF1", slots[number, 0])
        annotation.set("TIME_SLOT_REF2", slots[number, 1])
        ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = f"{bout.score:.2f}"
    ElementTree.SubElement(
        document,
        "LINGUISTIC_TYPE",
        {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": "looking", "TIME_ALIGNABLE": "true"},
    )
    ElementTree.indent(document, "    ")
    write_text(path, '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(document, "unicode") + "\n")


def relative_url(file: Path, folder: Path) -> str | None:
    """Returns the way from a folder to a file as ELAN writes it; None if there is none, on another drive of Windows.

    Blanks and letters of all alphabets stay as they are; what XML or UTF-8 cannot have is percent-encoded.

    Example:
        >>> relative_url(Path("/videos/day 1/walk.mp4"), Path("/videos/out"))
        '../day 1/walk.mp4'
        >>> relative_url(Path("/out/walk.mp4"), Path("/out"))
        './walk.mp4'
    """
    try:
        way = Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return None
    shown = "".join(letter if letter.isprintable() else quote(os.fsencode(letter)) for letter in way)
    return shown if shown.startswith("../") else f"./{shown}"
