"""Predicts what a camera sees: scores each frame at once, records it, and writes the same files as for a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.evaluation.calibration import log_odds
from benchmarks.scoring.looks import GAP, LOOK_CUT, Decoder
from benchmarks.system.locks import NAME, locked
from benchmarks.system.progress import plural, say
from benchmarks.video.annotate import SIDE, DrawnFace, draw_faces, join_parts
from benchmarks.video.bouts import BoutOptions
from benchmarks.video.camera import Camera, Recording
from benchmarks.video.decode import Frame, Video
from benchmarks.video.journal import UNFINISHED
from benchmarks.video.pipeline import FILES, RECORDING, Job, Summary, identity_of, score_faces, write_results
from benchmarks.video.scorer import ScoredFace
from benchmarks.video.window import LiveWindow
from registry import UserError
from zoo.files.atomic import check_writable, replacing, write_json


@dataclass
class _LiveTrack:
    decoder: Decoder
    newest: float  # seconds


class LiveLooks:
    """Says of each face, as it comes, whether it looks: what the decoder of looks holds for likelier so far.

    Args:
        options: threshold and cost of a change.
    """

    def __init__(self, options: BoutOptions) -> None:
        self._options = options
        self._level = log_odds(options.threshold, LOOK_CUT)
        self._tracks: dict[str, _LiveTrack] = {}

    def looks(self, row: ScoredFace) -> bool:
        """Adds the next face of a track."""
        if not self._options.cost:
            return row.score >= self._options.threshold
        track = self._tracks.get(row.track)
        if track is None or row.time - track.newest > GAP:
            track = self._tracks[row.track] = _LiveTrack(Decoder(self._options.cost), row.time)
        # The frame's own duration is unknown yet; the one before it is taken for it.
        evidence = float(log_odds(row.score, LOOK_CUT) - self._level) * (row.time - track.newest or GAP / 9)
        track.decoder.push(evidence)
        track.newest = row.time
        return track.decoder.leading


def predict_camera(job: Job, options: BoutOptions, window: LiveWindow | None = None) -> Summary:
    """Scores a camera until the user ends it; then writes the files of `FILES`, and the recording.

    Args:
        job: frames from a `Camera`, faces from a causal source.
        options: what counts as a bout.
        window: shows what is found.

    Raises:
        UserError: the folder has results already or cannot be written, or the camera gave no picture.
    """
    camera, out = job.frames, job.out
    assert isinstance(camera, Camera) and job.source.causal
    check_writable(out)
    with locked(out / NAME, str(out)):
        taken = [name for name in (*FILES, RECORDING, UNFINISHED) if (out / name).exists()]
        if taken:
            there = [path for path in (out / RECORDING, job.work / RECORDING) if path.exists()]
            again = f" (to score the recording again: predict {there[0]} -o DIR)" if there else ""
            raise UserError(f"{out} has {taken[0]} already; use another folder: -o DIR{again}")
        recorded = job.work / RECORDING
        recording, looks = Recording(recorded, camera.size), LiveLooks(options)

        def watch(frame: Frame, rows: Sequence[ScoredFace]) -> None:
            recording.add(frame)
            faces = [DrawnFace(row, looks.looks(row)) for row in rows]
            if window is not None:
                window.show(drawn(frame, faces, camera.size, job.header))

        try:
            facts = score_faces(replace(job, watch=watch))
        finally:
            recording.close()
        with replacing(out / RECORDING) as temporary:
            join_parts([recorded], temporary, job.header)
        video = Video(out / RECORDING)
        if camera.skipped:
            say(f"{camera.name}: skipped {plural(camera.skipped, 'picture')} that came while another one was scored")
        settings = identity_of(video, job.model, job.source)
        run = {"settings": settings, "facts": facts | {"skipped": camera.skipped}, "camera": camera.name}
        write_json(out / "run.json", run)
        return write_results(video, run, options, job)


def drawn(frame: Frame, faces: Sequence[DrawnFace], size: tuple[int, int], header: Sequence[str]) -> np.ndarray:
    """Returns the picture of a frame with its faces ``(H, W, 3)``, as in annotated.mp4."""
    picture = frame.reduced(SIDE)
    return draw_faces(picture, faces, picture.shape[1] / size[0], header)
