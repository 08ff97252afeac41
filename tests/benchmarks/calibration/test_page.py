"""The page on which faces are marked: its content, and how it works in a browser."""

import base64
import csv
import hashlib
import io
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bench
from benchmarks.calibration.finished import read_run
from benchmarks.calibration.page import render_label_page
from benchmarks.video.journal import read_rows
from tests.benchmarks.calibration import parts
from tests.benchmarks.calibration.browsing import Browser, data_of, open_browser
from tests.benchmarks.report.test_report import contrast
from tests.conftest import check_refused

HOSTILE = "</script><script>document.title='ran'</script>\"'<img src=x onerror=\"document.title='ran'\">{{ 7 * 7 }}"
KEY = {"looking": "ARROW_RIGHT", "not looking": "n", "cannot say": "ARROW_DOWN"}


@pytest.fixture(scope="module")
def out(walk: Path) -> Path:
    assert bench.main(["label", str(walk / "out"), "--count", "60"]) == 0
    return walk / "out"


@pytest.fixture(scope="module")
def text(out: Path) -> str:
    return (out / "label.html").read_text(encoding="utf-8")


def saved(path: Path) -> list[dict[str, str]]:
    """The rows of a downloaded labels.csv."""
    for _ in range(100):
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        time.sleep(0.1)
    raise AssertionError(f"{path} was not downloaded")


# -- content ------------------------------------------------------------------------------------------------------


def test_the_page_fetches_nothing_and_runs_only_its_script(text: str) -> None:
    assert "default-src 'none'" in text and "unsafe" not in text
    policy = re.search(r"script-src '(sha256-[^']+)'", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert policy
    assert policy[1] == "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rest = re.sub(r"data:image/webp;base64,[\w+/=]+", "", text)
    assert not re.findall(r"https?:|//\w|url\(|@import|<link|<iframe", rest.replace("; // decoded", ""))
    assert "src=" not in rest


def test_the_page_shows_no_scores(out: Path, text: str) -> None:
    """Neither as data nor as text: all that it knows of a face is listed here."""
    faces = data_of(text)["faces"]
    assert {key for face in faces for key in face} == {"time", "frame", "track", "box", "crop", "inside"}
    for row in read_rows(out / "frames.csv"):
        assert f"{row.score:.6f}" not in text


def test_each_crop_is_of_its_face(out: Path, text: str) -> None:
    """Of the colour that its square has in that frame, and around the middle of the frame that is drawn over it."""
    for face in data_of(text)["faces"]:
        image = Image.open(io.BytesIO(base64.b64decode(face["crop"].partition(",")[2])))
        left, top, width, height = (value / 100 for value in face["inside"])
        middle = np.asarray(image, float)[
            round((top + height / 2) * image.height), round((left + width / 2) * image.width)
        ]
        box = [float(edge) for edge in face["box"].split()]
        wanted = parts.colours(face["frame"])[0 if box[0] < 60 else 1]
        assert np.abs(middle - wanted).max() < 25, face
        assert face["time"] == pytest.approx(face["frame"] / parts.RATE, abs=1e-5)


def test_the_page_is_the_same_every_time(walk: Path, out: Path, text: str, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    assert bench.main(["label", str(out), "--count", "60"]) == 0
    assert (out / "label.html").read_text(encoding="utf-8") == text
    said = capsys.readouterr().out
    assert "60 faces of 10 tracks" in said and "then run calibrate" in said
    assert len(data_of(render_label_page(read_run(out), 500)[0])["faces"]) < 90  # one per 0.2 seconds, no more


def test_names_are_escaped(out: Path) -> None:
    run = read_run(out)
    hostile = replace(run, rows=run.rows.assign(track=HOSTILE), video={**run.video, "name": HOSTILE})
    text, _ = render_label_page(hostile, 12)
    assert text.count("<script") == 2 and "<img src=x" not in text and "{{ 7 * 7 }}" in text
    assert data_of(text)["faces"][0]["track"] == HOSTILE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda home: shutil.rmtree(home / "out"), "is not a folder of predict; run it first: python bench.py predict"),
        (lambda home: (home / "out/run.json").unlink(), "is not a finished run of predict: its run.json is missing"),
        (lambda home: (home / "out/frames.csv").unlink(), "its frames.csv is missing"),
        (lambda home: relinked(home / "out/frames.csv"), "its frames.csv is not a file"),
        (lambda home: (home / "out/run.json").write_text("{"), "broken JSON"),
        (lambda home: (home / "out/run.json").write_text("[]"), "not a run of predict, or damaged"),
        (lambda home: edit(home, lambda run: run.pop("inputs")), "is unfinished, or of an older version"),
        (lambda home: edit(home, lambda run: run["bouts"].update(threshold=7.0)), "threshold is 7.0"),
        (lambda home: append(home / "out/frames.csv", "x"), "is damaged (its checksum differs)"),
        (lambda home: (home / "walk.mp4").rename(home / "moved.mp4"), "is no longer there; run predict again with"),
        (lambda home: append(home / "walk.mp4", "x"), "has changed since"),
        (lambda home: (home / "out/label.html").symlink_to(home / "other"), "is not a file that label wrote"),
        (lambda home: (home / "out/label.html").mkdir(), "is not a file that label wrote"),
    ],
)
def test_what_is_no_finished_run_is_refused(
    walk: Path, tmp_path: Path, capsys: pytest.CaptureFixture, change: Any, said: str
) -> None:
    home = copied(walk, tmp_path / "home")
    change(home)
    check_refused(["label", str(home / "out")], said, capsys)
    assert not (home / "other").exists()


def test_a_count_has_bounds(walk: Path, capsys: pytest.CaptureFixture) -> None:
    check_refused(["label", str(walk / "out"), "--count", "0"], "--count is 0; it must be between 1 and 2000", capsys)


def copied(walk: Path, home: Path) -> Path:
    """A copy of the shared run, whose run.json has the copied video's path."""
    shutil.copytree(walk, home)
    (home / "out/label.html").unlink(missing_ok=True)
    edit(home, lambda run: run["inputs"].update(video=str(home / "walk.mp4"), model=str(home / "tint")))
    return home


def edit(home: Path, change: Any) -> None:
    content = json.loads((home / "out/run.json").read_text())
    change(content)
    (home / "out/run.json").write_text(json.dumps(content))


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def relinked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


# -- in a browser -------------------------------------------------------------------------------------------------


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with open_browser(tmp_path) as opened:
        yield opened


def test_marks_are_made_kept_undone_and_saved(out: Path, browser: Browser) -> None:
    """By keys, mouse and touch; the file holds what was marked, and a reload loses nothing."""
    browser.open(out / "label.html")
    faces = browser.faces
    assert browser.text("progress") == "0 of 60 marked" and browser.disabled("undo") and browser.disabled("save")
    wanted = {}
    for number, label in enumerate(["looking", "not looking", "cannot say", "looking"]):
        assert browser.text("caption").startswith(f"face {number + 1}, track {faces[number]['track']}, at 00:")
        browser.press(KEY[label])
        wanted[number] = label
    browser.press("BACKSPACE")
    assert browser.text("caption").startswith("face 4,")
    browser.click("[data-label='cannot say']")
    browser.tap("[data-label='not looking']")
    wanted |= {3: "cannot say", 4: "not looking"}
    assert browser.text("progress") == "5 of 60 marked"

    browser.reload()
    assert browser.text("progress") == "5 of 60 marked" and browser.text("caption").startswith("face 6,")
    browser.click("#undo")  # the history is kept too
    browser.press("l")
    wanted[4] = "looking"
    browser.click("#overview summary")
    browser.click("#faces li:nth-child(2) button")
    assert browser.pressed() == ["not looking"]
    browser.press("c")
    wanted[1] = "cannot say"
    browser.press("s")
    rows = saved(browser.downloads / "labels.csv")
    assert list(rows[0]) == ["time", "frame", "track", "box", "label"]
    assert [int(row["frame"]) for row in rows] == sorted(int(row["frame"]) for row in rows)
    found = {(row["frame"], row["track"], row["box"], float(row["time"])): row["label"] for row in rows}
    assert found == {
        (str(faces[n]["frame"]), faces[n]["track"], faces[n]["box"], faces[n]["time"]): label
        for n, label in wanted.items()
    }
    assert browser.errors() == []


def test_all_marks_made_in_the_browser_calibrate_the_model(
    walk: Path, out: Path, browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """From the page to a saved file, to a calibrated model, to a second prediction that agrees with the marks."""
    browser.open(out / "label.html")
    for face in browser.faces:
        left = float(face["box"].split()[0])
        browser.press(KEY["looking" if parts.looks(face["frame"], left) else "not looking"])
    assert browser.text("progress") == "60 of 60 marked"
    assert "python bench.py calibrate" in browser.text("done")
    browser.click("#save")
    rows = saved(browser.downloads / "labels.csv")
    assert len(rows) == 60
    model = tmp_path / "mine"
    capsys.readouterr()
    assert bench.main(["calibrate", str(out), str(browser.downloads / "labels.csv"), "-o", str(model)]) == 0
    assert "60 marked faces of 10 tracks" in capsys.readouterr().out
    again = parts.predicted(walk / "walk.mp4", model, tmp_path / "again")
    threshold = json.loads((again / "run.json").read_text())["bouts"]["threshold"]
    right = [
        (row.score >= threshold) == parts.looks(row.frame, row.box[0])
        for row in read_rows(again / "frames.csv")
        if parts.colours(row.frame)
    ]
    assert np.mean(right) > 0.9


def test_names_of_tracks_do_nothing_in_a_browser(out: Path, browser: Browser, tmp_path: Path) -> None:
    run = read_run(out)
    text, _ = render_label_page(
        replace(run, rows=run.rows.assign(track=HOSTILE), video={**run.video, "name": HOSTILE}), 5
    )
    (tmp_path / "hostile.html").write_text(text, encoding="utf-8")
    browser.open(tmp_path / "hostile.html")
    browser.click("#overview summary")
    browser.press("l")
    assert browser.title() != "ran" and HOSTILE in browser.text("caption")
    browser.press("s")
    assert [row["track"] for row in saved(browser.downloads / "labels.csv")] == [HOSTILE]
    assert browser.errors() == []


def test_the_policy_stops_a_script_that_is_added(text: str, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "added.html").write_text(text.replace("</main>", "</main><script>document.title='ran'</script>"))
    browser.open(tmp_path / "added.html")
    assert browser.title() != "ran" and browser.text("progress") == "0 of 60 marked"


def test_without_storage_the_page_says_so(text: str, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "private.html").write_text(text)
    browser.before_scripts("Object.defineProperty(window, 'localStorage', {get() { throw new Error('no'); }});")
    browser.open(tmp_path / "private.html")
    assert "save labels.csv before you close" in browser.text("warning")
    browser.press("l")
    assert browser.text("progress") == "1 of 60 marked"


def test_damaged_storage_is_dropped(text: str, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(text)
    key = data_of(text)["key"]
    for value in ("{", "[]", "7", '{"marks": {"0": "x", "-1": "looking", "999": "looking"}, "past": [[999, null], 3]}'):
        browser.open(tmp_path / "page.html")
        browser.run(f"localStorage.setItem('{key}', arguments[0])", value)
        browser.reload()
        assert browser.text("progress") == "0 of 60 marked" and browser.disabled("undo")
    assert browser.errors() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_can_be_read_and_touched(out: Path, browser: Browser, width: int, dark: bool) -> None:
    browser.resize(width, 740, dark)
    browser.open(out / "label.html")
    browser.press("l")
    browser.click("#overview summary")
    found = browser.run(
        """const root = document.documentElement, colour = (element, name) => getComputedStyle(element)[name];
        const buttons = [...document.querySelectorAll(".buttons button, .actions button")];
        return {beyond: root.scrollWidth - root.clientWidth, paper: colour(document.body, "backgroundColor"),
          inks: ["body", ".muted", "figcaption"].map(name => colour(document.querySelector(name), "color")),
          buttons: buttons.map(each => each.getBoundingClientRect()).map(box => [box.width, box.height]),
          labels: buttons.map(each => [colour(each, "color"), colour(each, "backgroundColor")]),
          bottom: Math.max(...buttons.slice(0, 3).map(each => each.getBoundingClientRect().bottom + scrollY)),
          picture: document.getElementById("crop").getBoundingClientRect().width}"""
    )
    assert found["beyond"] <= 0
    assert found["bottom"] <= 740  # face and buttons are seen without scrolling
    assert found["picture"] >= 170
    assert min(min(size) for size in found["buttons"]) >= 44  # pixels that a finger hits
    assert all(contrast(ink, found["paper"]) >= 4.5 for ink in found["inks"])
    assert all(contrast(*pair) >= 4.5 for pair in found["labels"])
    light = [int(value) for value in re.findall(r"\d+", found["paper"])][0] > 128
    assert light != dark
