"""The frames of a camera: the newest one whenever one can be scored; those that came in between are skipped."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Protocol

import numpy as np

from backbones.packaged import need_opencv
from benchmarks.system import interrupts
from benchmarks.system.progress import say
from benchmarks.video.annotate import TICKS
from benchmarks.video.container import USUAL
from benchmarks.video.decode import Frame
from registry import UserError, printable

POLL = 0.1  # seconds between two looks at the keyboard
PATIENCE = 10.0  # seconds without a picture after which a camera counts as gone
RECENT = 99  # frames, of which the median interval is typical


class Capture(Protocol):
    """The part of OpenCV's `VideoCapture` that is used."""

    def read(self) -> tuple[bool, np.ndarray]:
        """Returns whether there is a picture, and the picture ``(H, W, 3)`` uint8, BGR; waits for it."""

    def release(self) -> None:
        """Frees the camera."""


def open_capture(address: str) -> Capture:
    """Opens a camera by its number or by the path of its device; a video file plays as if it were filmed now.

    Raises:
        UserError: OpenCV is missing, there is no such camera, or it cannot be opened.
    """
    name = printable(f"camera:{address}")
    if not address.isdecimal() and not Path(address).exists():
        raise UserError(f"{name}: no such device; give a number from 0, as in camera:0, or the path of a device")
    need_opencv("a camera")
    import cv2

    logging: Any = cv2.utils.logging
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # it reports at length what is said in one line below
    capture: Any = cv2.VideoCapture(int(address) if address.isdecimal() else address)
    if not capture.isOpened():
        raise UserError(f"{name} cannot be opened; is it connected, free, and are you allowed to use it?")
    if Path(address).is_file():
        return _Played(capture, capture.get(cv2.CAP_PROP_FPS) or 1 / USUAL)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # pictures that waited are old
    return capture


class _Played:
    """A file whose pictures come at its own rate."""

    def __init__(self, capture: Capture, rate: float) -> None:
        self._capture, self._rate = capture, rate
        self._next: float | None = None

    def read(self) -> tuple[bool, np.ndarray]:
        now = time.monotonic()
        due = now if self._next is None else max(self._next, now)
        time.sleep(due - now)
        self._next = due + 1 / self._rate
        return self._capture.read()

    def release(self) -> None:
        self._capture.release()


class _Taken(NamedTuple):
    """A picture and when it came."""

    at: float  # seconds of the monotonic clock
    picture: np.ndarray


class Camera:
    """A camera; a `FrameStream` whose frames can be read once.

    Attributes:
        name: address, as the user gave it.
        size: width and height, both even as H.264 needs; a last odd line or column is cut off.
        skipped: pictures that came while another one was scored.

    Args:
        name: see above.
        capture: open.
        stopped: asked ten times a second whether the user wants to end.

    Raises:
        UserError: the camera gives no picture.
    """

    live = True
    expected = 0

    def __init__(self, name: str, capture: Capture, stopped: Callable[[], bool] = lambda: False) -> None:
        self.name = self.title = printable(name)
        self.skipped = 0
        self._capture, self._stopped = capture, stopped
        there, first = capture.read()
        if not there:
            capture.release()
            raise UserError(f"{self.name} gives no picture; does another program use it?")
        height, width = first.shape[:2]
        self.size = (width // 2 * 2, height // 2 * 2)
        self._intervals: deque[float] = deque([USUAL], maxlen=RECENT)
        self._news = threading.Condition()
        self._newest: _Taken | None = None
        self._ended = False

    @property
    def frame_time(self) -> float:
        """Seconds between two frames as a rule, so far."""
        return median(self._intervals)

    def frames(self, after: Frame | None = None) -> Iterator[Frame]:
        """Yields frames until the user ends it, by a signal or otherwise, or the camera is gone; the first is at 0."""
        import av

        assert after is None, "a camera cannot go back"
        grabber = threading.Thread(target=self._grab, daemon=True)
        grabber.start()
        start, before, number = None, 0.0, 0
        try:
            while (taken := self._take()) is not None:
                start = taken.at if start is None else start
                now = taken.at - start
                if number:
                    now = max(now, before + 1 / TICKS)  # times must increase
                    self._intervals.append(now - before)
                stamp = round(now * TICKS)
                shown = av.VideoFrame.from_ndarray(taken.picture, format="bgr24")
                shown.pts, shown.time_base = stamp, Fraction(1, TICKS)
                yield Frame(number, now, stamp, 0, shown)
                before, number = now, number + 1
        finally:
            self._ended = True
            grabber.join(PATIENCE)
            self._capture.release()

    def lost_at_end(self, last: Frame) -> int:
        """Returns 0: skipped pictures are counted in `skipped`."""
        return 0

    def _grab(self) -> None:
        """Reads pictures as they come, in a thread of its own, and keeps the newest."""
        width, height = self.size
        while not self._ended:
            there, picture = self._capture.read()
            with self._news:
                if not there or picture.shape[0] < height or picture.shape[1] < width:
                    self._ended = True
                else:
                    self.skipped += self._newest is not None
                    self._newest = _Taken(time.monotonic(), np.ascontiguousarray(picture[:height, :width]))
                self._news.notify()

    def _take(self) -> _Taken | None:
        """Waits for a picture; None: there is none any more."""
        patience = time.monotonic() + PATIENCE
        with self._news:
            while True:
                if interrupts.pending or self._stopped():
                    return None
                if self._newest is not None:
                    taken, self._newest = self._newest, None
                    return taken
                if self._ended:
                    return None
                if time.monotonic() > patience:
                    say(f"{self.name} has given no picture for {PATIENCE:.0f} s; ending")
                    return None
                self._news.wait(POLL)


class Recording:
    """The video of what a camera saw. It can be played as far as it was written, even if the process is killed.

    Args:
        path: an .mp4.
        size: width and height, even.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        import av

        # Fragments, because the index of an ordinary MP4 is written at its end.
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path.absolute()), "w", format="mp4", options=options)
        self._stream: Any = self._container.add_stream("libx264", rate=30)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._stream.options = {"preset": "ultrafast", "crf": "20", "bf": "0", "g": "30"}

    def add(self, frame: Frame) -> None:
        """Adds the next frame."""
        self._container.mux(self._stream.encode(frame.shown))

    def close(self) -> None:
        """Completes the file."""
        self._container.mux(self._stream.encode())
        self._container.close()


def typed_q() -> bool:
    """Whether the user has typed q and Enter in the terminal in which this process runs in the foreground."""
    try:
        if not sys.stdin.isatty() or os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
            return False
        ready, _, _ = select.select([sys.stdin], [], [], 0)
    except (AttributeError, OSError, ValueError):  # Windows, where a terminal cannot be asked; or stdin is closed
        return False
    return bool(ready) and sys.stdin.readline().strip().lower() == "q"
