"""A video and a model -> a folder of results: the straight line, which goes on where a killed run stopped.

Two files below `unfinished` are only ever appended to: what was seen in each frame, and the rows that are final. From
them a later run knows all tracks without looking again, and decodes anew no more than the window of the next score.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backbones.base import state_sha256
from benchmarks.system import interrupts
from benchmarks.system.locks import NAME, locked
from benchmarks.system.progress import Progress, say
from benchmarks.video.annotate import annotate
from benchmarks.video.bouts import bouts_of
from benchmarks.video.decode import Frame, Video
from benchmarks.video.detectors.base import Detector, Faces, best, iou
from benchmarks.video.faces import GivenFaces
from benchmarks.video.journal import Journal, RowsFile, read_rows
from benchmarks.video.outputs import write_bouts, write_eaf, write_vtt
from benchmarks.video.scorer import Scorer
from benchmarks.video.track import LEAST, TrackedFrame, Tracker
from registry import UserError
from zoo.files.atomic import check_writable, write_json
from zoo.files.checksums import NAME as SUMS
from zoo.files.checksums import damaged, sha256_of, write_sums

if TYPE_CHECKING:
    from zoo.models import Model

VERSION = 3  # raised when the same video, model and options would come to other rows
ENDS = 1 << 20  # bytes at both ends of a video by which it is recognised
LOOKS = 10.0  # times a second that faces are looked for where they are expected
BACK = 0.5  # seconds before a whole frame is searched, through which its new faces are looked for too
AROUND = 1.5  # how far from the middle of an expected box, in its longer side
FACE = 48  # pixels of that side in the picture that is searched
UNFINISHED = "unfinished"  # folder of what a later run goes on from
FILES = ("frames.csv", "bouts.csv", "bouts.vtt", "bouts.eaf", "annotated.mp4", "run.json")


@dataclass(frozen=True)
class Looking:
    """How faces are come by.

    Attributes:
        detector: finds them; None where they are given.
        rate: whole frames a second that it searches; in between it looks where faces are expected, and where the next
            whole frame has new ones, unless that would be to look ahead.
        given: boxes of `read_faces`, or None.
        given_sha256: of their file.
        causal: use no frame later than the one that is scored.
    """

    detector: Detector | None
    rate: float
    given: pd.DataFrame | None = None
    given_sha256: str | None = None
    causal: bool = False


@dataclass(frozen=True)
class Bouts:
    """What makes a bout; see `bouts_of`."""

    threshold: float
    least: float
    merge: float
    cost: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        frames: that were decoded.
        lost: that could not be.
        seconds: of video.
        tracks: with a score.
        scores: rows of frames.csv.
        bouts: found.
    """

    frames: int
    lost: int
    seconds: float
    tracks: int
    scores: int
    bouts: int


def predict_video(path: Path, model: Model, looking: Looking, bouts: Bouts, out: Path, device: str = "cpu") -> Outcome:
    """Write frames.csv, bouts.csv, bouts.vtt, bouts.eaf, annotated.mp4 and run.json; each is whole or absent.

    What is there already is not done again; bouts are found anew each time, as that takes no time.

    Raises:
        UserError: the video cannot be decoded, `out` has results of something else, cannot be written, or is being
            written by another process.
    """
    video = Video(path)
    check_writable(out)
    with locked(out / NAME, str(out)):
        return _predict(video, model, looking, bouts, out, device)


def _predict(video: Video, model: Model, looking: Looking, bouts: Bouts, out: Path, device: str) -> Outcome:
    settings = _settings(video, model, looking)
    work = out / UNFINISHED
    about = _open_folder(out, settings)
    header = header_of(model)
    if about is None:
        facts = _score(video, model, looking, work, header, device)
        about = {"settings": settings, "facts": {**facts, "sha256": sha256_of(work / "frames.csv")}}
        write_json(out / "run.json", about)
        write_sums(out, ["run.json"])
    if not (out / "frames.csv").exists():
        (work / "frames.csv").replace(out / "frames.csv")
    facts = about["facts"]

    (out / SUMS).unlink(missing_ok=True)  # of what is about to be written anew
    tracks: set[str] = set()
    counted = _counted(out / "frames.csv", tracks)
    found = bouts_of(counted, frame_time=video.frame_time, **asdict(bouts))
    write_bouts(out / "bouts.csv", found, header)
    write_vtt(out / "bouts.vtt", found, header)
    write_eaf(out / "bouts.eaf", found, header, sorted(tracks, key=_natural), video)
    write_json(out / "run.json", about | {"bouts": asdict(bouts)})
    write_sums(out, [name for name in FILES if name != "annotated.mp4"])
    if not (out / "annotated.mp4").exists() or (work / "annotated").exists():  # put together, and not yet summed
        annotate(video, out / "frames.csv", out / "annotated.mp4", work / "annotated", header, facts["frames"])
    write_sums(out, FILES)
    shutil.rmtree(work, ignore_errors=True)
    return Outcome(facts["frames"], facts["lost"], facts["seconds"], len(tracks), facts["rows"], len(found))


def header_of(model: Model) -> list[str]:
    """What stands at the head of everything that shows scores."""
    lines = [f"scores of the model {model.name} (lamzoo)"]
    if model.rendered_only:
        lines.append(
            f"{model.name} was trained on rendered faces only and is untested on people: do not rely on these scores"
        )
    return lines


def _settings(video: Video, model: Model, looking: Looking) -> dict[str, Any]:
    """What decides the rows, ready for JSON."""
    size = video.path.stat().st_size
    with video.path.open("rb") as file:
        ends = hashlib.sha256(file.read(ENDS))
        file.seek(max(0, size - ENDS))
        ends.update(file.read())
    network = model.network
    return {
        "version": VERSION,
        "video": {"name": video.path.name, "bytes": size, "sha256_of_ends": ends.hexdigest()},
        "model": {
            "name": model.name,
            "backbone": network.backbone.fingerprint(),
            "head": state_sha256(network.head.state_dict()),
            "views": list(model.views),
            "rate": model.rate,
            "margin": [*model.margin],
            "square": model.square,
            "smoothing": model.smoothing,
        },
        "detector": looking.detector and {"type": type(looking.detector).__name__, **looking.detector.fingerprint()},
        "detections_a_second": looking.rate if looking.detector else None,
        "faces": looking.given_sha256,
        "causal": looking.causal,
    }


def _open_folder(out: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Read what is known of the rows in a folder; None where they are not all there.

    Files that are no longer what was written are removed, so that they are made anew.

    Raises:
        UserError: the folder has something else's.
    """
    spoilt = set(damaged(out, "run.json"))
    for path in (out / "run.json", out / UNFINISHED / "settings.json"):
        if path.name == "run.json" and spoilt & {SUMS, path.name}:
            continue  # nobody knows whose it was
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); delete {out} or use another folder: -o DIR") from error
        there = content.get("settings")
        if there != settings:
            differ = [key for key in settings if not isinstance(there, dict) or there.get(key) != settings[key]]
            raise UserError(
                f"{out} has results of another {' and another '.join(differ)}; use another folder: -o DIR, or delete it"
            )
        if path.name == "run.json":
            rows = next((f for f in (out / "frames.csv", out / UNFINISHED / "frames.csv") if f.exists()), None)
            known = content["facts"].get("sha256")  # older versions did not say
            if rows is not None and known in (None, sha256_of(rows)):
                _remove(out, spoilt)
                return content
            spoilt.add("frames.csv")
    _remove(out, FILES if SUMS in spoilt else spoilt)
    write_json(out / UNFINISHED / "settings.json", {"settings": settings})
    return None


def _remove(out: Path, spoilt: Collection[str]) -> None:
    there = sorted(name for name in spoilt if (out / name).exists())
    if there:
        say(f"damaged in {out}: {', '.join(there)}; made anew")
    for name in there:
        (out / name).unlink()


def _score(
    video: Video, model: Model, looking: Looking, work: Path, header: list[str], device: str
) -> dict[str, int | float]:
    """Write the rows that are not there yet; returns facts for `run.json`."""
    journal, rows = Journal(work / "seen.jsonl"), RowsFile(work / "frames.csv", header)
    scorer = Scorer(model, looking.causal, device)
    placer = _placer(video, looking)
    last: Frame | None = None
    written = sum(1 for _ in read_rows(work / "frames.csv"))
    needed = _first_needed(journal, _placer(video, looking), rows.first) - Scorer.reach(model)

    def write(placed: list[TrackedFrame]) -> int:
        count = 0
        for one in placed:
            found = scorer.push(one)
            rows.write(found)
            count += sum(row.frame >= rows.first for row in found)
        return count

    expected = 0 if video.end is None else max(1, round(video.end / video.frame_time))
    try:
        with Progress(video.path.name, expected, "frame") as progress:
            for frame, faces in interrupts.steps(seen(video, looking, journal, placer, needed)):
                written += write(placer.place(frame, faces))
                last = frame
                progress.advance()
            written += write(placer.finish())
            found = scorer.finish()
            rows.write(found)
            written += sum(row.frame >= rows.first for row in found)
    finally:
        journal.close()
        rows.close()
    assert last is not None  # `Video` has seen one
    lost = last.lost + video.lost_at_end(last)
    if lost:
        say(
            f"{video.path.name}: {lost} frame{'s'[: lost != 1]} could not be decoded and have no score; the file is "
            "damaged there"
        )
    if isinstance(placer, GivenFaces) and placer.placed < placer.count:
        left = f"{placer.count - placer.placed} of {placer.count} given boxes"
        say(f"{video.path.name}: {left} lie outside its frames, or in one where their track has another")
    return {
        "frames": last.number + 1,
        "lost": lost,
        "seconds": round(last.time + video.frame_time, 6),
        "rows": written,
        "width": video.size[0],
        "height": video.size[1],
    }


def _placer(video: Video, looking: Looking) -> Tracker | GivenFaces:
    return Tracker(looking.causal) if looking.given is None else GivenFaces(looking.given, video.frame_time)


def _first_needed(journal: Journal, placer: Tracker | GivenFaces, first: int) -> float:
    """Seconds of the first frame from `first` on that has a face, or that may have one for all the journal says."""
    until = -math.inf
    for frame, faces in journal.read():
        for placed in placer.place(frame, faces):
            if placed.frame.number >= first and placed.tracks:
                return placed.frame.time
            until = placed.frame.time
    return until


def seen(
    video: Video, looking: Looking, journal: Journal, tracker: Tracker | GivenFaces, needed: float
) -> Iterator[tuple[Frame, Faces | None]]:
    """All frames with their faces, from the journal as far as it goes; with pictures from where they are needed.

    Args:
        video: decoded where there is no way around it.
        looking: how faces are come by.
        journal: read, and continued.
        tracker: has taken in all frames before the one that is asked for.
        needed: seconds from which pictures are.
    """
    after, known = None, iter(journal.read())
    pending = next(known, None)
    while pending is not None and pending[0].time < needed:
        after = pending[0]
        yield pending
        pending = next(known, None)
    before = after
    held: deque[tuple[Frame, bool]] = deque()  # frames, and whether it is time to look into them
    ahead = 0.0 if looking.causal or looking.detector is None else BACK

    def search(until: Frame | None = None, later: np.ndarray | None = None) -> Iterator[tuple[Frame, Faces | None]]:
        """Settle what is held: all of it, what is too old to wait for a frame, or all before one with its faces."""
        while held and (until is None or later is not None or until.time - held[0][0].time >= ahead):
            frame, due = held.popleft()
            faces = None
            if due:
                assert looking.detector is not None and isinstance(tracker, Tracker)
                where = tracker.expected(frame.time)
                if until is not None and later is not None:
                    known = iou(later, tracker.expected(until.time)).max(axis=1, initial=0) >= LEAST
                    where = np.concatenate([where, later[~known]])
                faces = look_around(looking.detector, frame, where) if len(where) else None
            journal.append(frame, faces)
            yield frame, faces

    for frame in video.frames(after):
        if pending is not None:
            if pending[0] != frame:
                raise UserError(
                    f"video {video.path}: frame {frame.number} is at {frame.time:.6f} s and was at "
                    f"{pending[0].time:.6f} s before; the file has changed: use another folder, -o DIR"
                )
            yield frame, pending[1]
            pending = next(known, None)
        elif looking.detector is not None and _due(before, frame, looking.rate):
            yield from search(frame)
            faces = look(looking.detector, frame, video)
            yield from search(frame, faces.boxes)
            journal.append(frame, faces)
            yield frame, faces
        else:
            held.append((frame, looking.detector is not None and _due(before, frame, LOOKS)))
            yield from search(frame)
        before = frame
    yield from search()


def _due(before: Frame | None, frame: Frame, rate: float) -> bool:
    """Whether something that is done so many times a second is done in a frame: follows from times alone."""
    return before is None or math.floor(before.time * rate + 1e-6) < math.floor(frame.time * rate + 1e-6)


def look(detector: Detector, frame: Frame, video: Video) -> Faces:
    """Search a whole frame."""
    picture = frame.reduced(detector.side)
    boxes, scores = detector.detect(picture)
    scale = np.array(video.size) / picture.shape[1::-1]
    return Faces(boxes * np.tile(scale, 2), scores)


def look_around(detector: Detector, frame: Frame, expected: np.ndarray) -> Faces:
    """Search a frame near boxes ``(N, 4)`` where faces are expected, each in a small picture of its own."""
    import cv2

    picture = frame.picture()
    size = np.array(picture.shape[1::-1])
    boxes, scores = [np.empty((0, 4))], [np.empty(0)]
    for box in expected:
        side = max(box[2:] - box[:2])
        middle = (box[:2] + box[2:]) / 2
        left, top = np.clip(np.floor(middle - AROUND * side), 0, size).astype(int)
        right, bottom = np.clip(np.ceil(middle + AROUND * side), 0, size).astype(int)
        if right - left < 2 or bottom - top < 2:
            continue
        scale = min(FACE / side, 2.0)
        shape = (max(1, round(scale * (right - left))), max(1, round(scale * (bottom - top))))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        found = detector.detect(cv2.resize(picture[top:bottom, left:right], shape, interpolation=how))
        stretch = np.array([right - left, bottom - top]) / shape
        boxes.append(found.boxes * np.tile(stretch, 2) + [left, top, left, top])
        scores.append(found.scores)
    return best(np.concatenate(boxes), np.concatenate(scores))


def _counted(path: Path, tracks: set[str]) -> Iterator[Any]:
    for row in read_rows(path):
        tracks.add(row.track)
        yield row


def _natural(track: str) -> tuple[int, str]:
    return (int(track), "") if track.isdigit() else (1 << 62, track)
