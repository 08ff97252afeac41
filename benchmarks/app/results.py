"""What was found in a video, and its faces to mark."""

from __future__ import annotations

import csv
from itertools import groupby
from typing import Any

from markupsafe import Markup

from benchmarks.app.frame import Watched, button, element, markup, table
from benchmarks.app.jobs import DOWNLOADS, LABEL_PAGE, VideoJob, read_result_table
from benchmarks.app.queue import JobQueue
from benchmarks.app.timeline import clock, look_timeline
from registry import UserError
from zoo.files.atomic import write_text
from zoo.files.untrusted import read_json

LARGEST_LABELS = 1 << 20  # characters of labels.csv: ten times those of the largest page
PAGE = 20  # looks per page of the table

# The page of label is in a frame, and hands the saved marks to this page.
_LISTEN = """
window.addEventListener("message", event => {
  const page = document.querySelector("iframe.faces");
  if (event.origin === location.origin && page && event.source === page.contentWindow
      && typeof event.data.labels === "string") emitEvent("labels", event.data.labels);
});
"""


def show_results(job: VideoJob) -> None:
    """Video, timeline, looks and files; nothing before they are there."""
    if not job.record.scored:
        return
    from nicegui import ui

    try:
        people, looks = (read_result_table(job.out / name) for name in ("people.csv", "bouts.csv"))
        seconds = float(read_json(job.out / "run.json", "a run of predict")["facts"]["seconds"])
    except (OSError, UserError, KeyError, ValueError, csv.Error) as error:
        markup(f"The results cannot be read ({error}); delete this video and score it again.", kind="warning")
        return
    address = f"/files/{job.id}"
    video = ui.video(f"{address}/annotated.mp4").props('aria-label="the annotated video"')
    markup("Boxes go from blue (not looking) to orange (looking). Within a look the frame is thick and says LOOKS.")
    for line in job.record.said:
        markup(line, kind="muted")
    markup("Looks over time", "h2")
    if people:
        with element("div", "scroll tall").props('tabindex="0" aria-label="looks over time"'):
            markup(look_timeline(people, looks, seconds), "div")
        markup("Thin line: on screen. Thick bar: looking. A person who comes back is a new track.", kind="muted")
    else:
        markup("No face was found.")
    if looks:
        markup("All looks", "h2")
        _looks(looks, video)
    markup("Files", "h2")
    links = [
        Markup('<li><a href="{}/{}" download>{}</a> <span class="muted">{}</span></li>').format(
            address, name, name, what
        )
        for name, what in DOWNLOADS.items()
    ]
    markup(Markup("").join(links), "ul", "files")


def _looks(looks: list[dict[str, str]], video: Any) -> None:
    rows = [
        {
            "id": number,
            "track": look["track"],
            "start": float(look["start"]),
            "clock": clock(float(look["start"]), 0),
            "duration": round(float(look["duration"]), 2),
            "score": round(float(look["score"]), 2),
        }
        for number, look in enumerate(looks)
    ]
    heads = {"start": "start", "track": "track", "duration": "seconds", "score": "mean score"}
    columns: list[dict[str, Any]] = [
        {"name": k, "label": head, "field": k, "align": "left"} for k, head in heads.items()
    ]
    columns[1][":sort"] = "(a, b) => a - b || a.localeCompare(b)"  # numbers by value
    made = table(columns, rows, PAGE)
    made.add_slot(
        "body-cell-start",
        """<q-td :props="props"><q-btn flat dense no-caps no-wrap icon="play_arrow" :label="props.row.clock"
        :aria-label="'play from ' + props.row.clock" @click="() => $parent.$emit('seek', props.row.start)" /></q-td>""",
    )

    def seek(event: Any) -> None:
        video.seek(float(event.args))
        video.play()

    made.on("seek", seek)


def show_marks(queue: JobQueue, job: VideoJob) -> tuple[Watched, Watched]:
    """The parts of the page in which faces are marked, and the model is fitted to the marks."""
    from nicegui import ui

    ui.run_javascript(_LISTEN)
    ui.on("labels", lambda event: _keep_labels(job, event.args))

    def idle() -> bool:
        return job.record.state not in ("waiting", "running")

    def has_page() -> bool:
        return job.file(LABEL_PAGE) is not None

    def marked() -> float:
        return job.labels.stat().st_mtime if job.labels.is_file() else 0.0

    def faces() -> None:
        if not job.record.scored:
            return
        markup("Is it right?", "h2")
        markup(
            "Mark faces of this video yourself, without seeing scores. Then the model is compared with your marks and "
            "fitted to them. It takes at least 20 marks, 5 of each kind; 60 are better."
        )
        if has_page():
            markup(
                Markup('<iframe class="faces" src="/files/{}/{}" title="faces to mark"></iframe>').format(
                    job.id, LABEL_PAGE
                ),
                "div",
            )
        elif idle():
            button("Mark faces", lambda: queue.ask(job, "label"), "main")

    def fit() -> None:
        if not job.record.scored or not marked():
            return
        with job.labels.open(encoding="utf-8") as file:
            count = sum(1 for _ in file) - 1
        markup(f"{count} marks are saved.", kind="status").props('role="status"')
        if idle():
            button("Fit the model to these marks", lambda: queue.ask(job, "calibrate"), "main")

    return (
        Watched(lambda: (job.record.scored, has_page(), has_page() or idle()), faces),
        Watched(lambda: (job.record.scored, marked(), idle()), fit),
    )


def show_outcome(job: VideoJob) -> None:
    """What the last calibration printed; nothing before there is one."""
    if job.record.gained:
        markup("What the marks say", "h2")
        for aligned, lines in groupby(job.record.gained, key=lambda line: "  " in line):  # the table, or sentences
            if aligned:
                markup("\n".join(lines), "pre").props('tabindex="0"')
            else:
                for line in lines:
                    markup(line)
        if job.models:
            markup(Markup('The calibrated model can be chosen for <a href="/">the next video</a>.'))


def _keep_labels(job: VideoJob, text: Any) -> None:
    from nicegui import ui

    if not isinstance(text, str) or len(text) > LARGEST_LABELS:
        ui.notify("these are no marks of the page", type="negative")
        return
    try:
        write_text(job.labels, text)
    except UserError as error:
        ui.notify(str(error), type="negative")
