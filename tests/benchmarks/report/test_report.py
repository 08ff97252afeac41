import base64
import copy
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_curve

import bench
from benchmarks.config.resolve import resolve
from benchmarks.data import synthlam
from benchmarks.data.dataset import Ego4D, SynthLAM
from benchmarks.data.frames import KEY
from benchmarks.pipeline import run as pipeline
from benchmarks.pipeline.session import Session
from benchmarks.report import charts
from benchmarks.report.crops import SIDE, data_uri
from benchmarks.report.page import render_page
from benchmarks.report.rows import ReportRow, choose_tracks, mistakes, precision_curves, provenance, read_row, shared
from benchmarks.rows.find import RECORDS
from benchmarks.system.cores import cores

QUICK = ["windows.stride.train=2", "windows.stride.val=2", "training.epochs=2", "training.lr=0.01"]
HOSTILE = "</td></title><script>alert('1')</script><img src=x onerror=alert(2)>"
VOID = {"meta", "img", "br", "wbr"}


class Page(HTMLParser):
    """Every tag with its attributes, tables as lists of cells, and the stack of open tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.tiles: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "li" and "ul.sheet" in self.open:
            self.tiles.append([])
        elif tag == "img":
            self.tiles[-1].append(dict(attrs)["src"])
        if tag not in VOID:
            self.open.append("ul.sheet" if dict(attrs).get("class") == "sheet" else tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().partition(".")[0] == tag

    def handle_data(self, data: str) -> None:
        if self.rows and self.open[-1] not in ("svg", "text") and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += f" {data.strip()}" if data.strip() else ""
        if "li" in self.open and "ul.sheet" in self.open and data.strip():
            self.tiles[-1].append(data.strip())


@pytest.fixture(scope="module")
def runs(lam_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of two rows with two seeds each on the small data set."""
    out = tmp_path_factory.mktemp("runs")
    small = ["head.projection=8", "head.hidden=8", "head.mlp=[8,8,8]"]
    rows = [
        resolve("internlstm_flip_tta", "ego4d", backbone="tiny_means", settings=[*QUICK, *small]),
        resolve("probe", "ego4d", backbone="tiny_means", settings=QUICK),
    ]
    pipeline.run(rows, Session(Ego4D(lam_tree), seeds=2, out=out))
    return out


@pytest.fixture(scope="module")
def rows(runs: Path, lam_tree: Path) -> list[ReportRow]:
    return [
        read_row(path.parent, "ego4d", Ego4D(lam_tree).frames) for path in sorted(runs.glob("results/*/*/result.json"))
    ]


@pytest.fixture(scope="module")
def text(rows: list[ReportRow], lam_tree: Path) -> str:
    return render_page(rows, lam_tree, False, lambda: None)


def row_with(frames: pd.DataFrame, scores: list[list[float]], rows: list[ReportRow]) -> ReportRow:
    """A row with other frames and scores and the record of a real one."""
    return ReportRow(rows[0].result, "test", frames, np.array(scores))


def self_contained(page: Page, text: str) -> None:
    """Asserts that the page has no script and fetches nothing."""
    assert page.open == []
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in {"src", "href", "srcset", "xlink:href", "data", "poster"} & attributes.keys():
            assert attributes[name].startswith("data:image/webp;base64," if tag in ("img", "image") else "#"), (
                attributes
            )
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in text


def test_a_curve_is_the_highest_precision_at_this_or_higher_recall() -> None:
    """Ranked by score: look, not, look, not, look. Precision at the hits 1/1, 2/3, 3/5.

    Not looking, ranked the other way: look, not, look, not, look: hits at ranks 2 and 4, precision 1/2 and 2/4.
    """
    scores, labels = np.array([[0.9, 0.8, 0.7, 0.6, 0.5]]), np.array([1, 0, 1, 0, 1])
    looking, other = precision_curves(scores, labels)
    np.testing.assert_allclose(looking, [1, 2 / 3, 3 / 5])
    np.testing.assert_allclose(other, [1 / 2, 1 / 2])


def test_curves_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(3)
    scores, labels = random.random((3, 400)), random.integers(0, 2, 400)
    for found, of_class, own in zip(
        precision_curves(scores, labels), (labels, 1 - labels), (scores, 1 - scores), strict=True
    ):
        expected = []
        for of_seed in own:
            precision, recall, _ = precision_recall_curve(of_class, of_seed)
            steps = np.arange(1, of_class.sum() + 1) / of_class.sum()
            expected.append([precision[recall >= step - 1e-9].max() for step in steps])
        np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=1e-12)


def test_the_area_under_a_curve_is_the_ap_of_the_record(rows: list[ReportRow]) -> None:
    for row in rows:
        metrics = row.result["splits"]["test"]["metrics"]
        looking, other = precision_curves(row.scores, row.frames["label"].to_numpy())
        assert looking.mean() == pytest.approx(metrics["AP.looking"]["mean"], abs=1e-12)
        assert other.mean() == pytest.approx(metrics["AP.not_looking"]["mean"], abs=1e-12)


def test_a_chart_is_a_file_with_the_colours_of_the_page() -> None:
    chart = charts.precision_recall([np.array([1.0, 0.5])] * 8, 0.2, "a <chart>")
    root = ElementTree.fromstring(charts.as_file(chart))
    name = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{name}svg" and len(root.findall(f"{name}path")) == 8
    style = root.find(f"{name}style").text
    assert "var(" not in style and "body" not in style and "svg .line.c0 { stroke: #0b66b8; }" in style
    for element in root.iter():
        for kind in element.get("class", "").split():
            assert kind == "chart" or f".{kind}" in style, kind


def test_one_class_has_no_curves() -> None:
    assert precision_curves(np.array([[0.2, 0.7]]), np.array([1, 1])) is None


def test_tracks_are_chosen_by_error_without_repeats(rows: list[ReportRow]) -> None:
    """Errors of a: (|.6 - 1| + |.2|) / 2 = .3; b: (.9 + .8) / 2; c has one class; d: (.1 + (.2 + .4) / 2) / 2 = .2."""
    frames = pd.DataFrame(
        {"clip": "v", "track": list("aabbccddd"), "frame": range(9), "label": [1, 0, 1, 0, 0, 0, 1, 0, 0], "image": ""}
    )
    row = row_with(frames, [[0.6, 0.2, 0.1, 0.8, 0.9, 0.9, 0.9, 0.2, 0.4]], rows)
    found = [(row.frames["track"][track.rows[0]], round(track.error, 9), track.best) for track in choose_tracks(row, 2)]
    assert found == [("b", 0.85, False), ("a", 0.3, False), ("d", 0.2, True)]


def test_mistakes_are_the_most_confident_of_each_track(rows: list[ReportRow]) -> None:
    """Mean scores of the seeds: a .6 .9 .5, b .7 .1, c (looks) .2 .3 .5; 0.5 is called looking."""
    frames = pd.DataFrame(
        {"clip": "v", "track": list("aaabbccc"), "frame": range(8), "label": [0] * 5 + [1] * 3, "image": ""}
    )
    mean = np.array([0.6, 0.9, 0.5, 0.7, 0.1, 0.2, 0.3, 0.5])
    row = row_with(frames, [mean + 0.05, mean - 0.05], rows)
    alarms, missed = mistakes(row, 0, 12), mistakes(row, 1, 12)
    assert (alarms.rows.tolist(), alarms.frames, alarms.tracks) == ([1, 3], 4, 2)
    assert (missed.rows.tolist(), missed.frames, missed.tracks) == ([5], 2, 1)
    assert mistakes(row, 0, 1).rows.tolist() == [1]


def test_slots_take_the_frame_nearest_to_the_middle_of_each_part() -> None:
    """Frames 1 to 26 make parts of two frames each, 0.5 to 2.5 and so on: of two as near the first is taken."""
    assert charts.slots(np.arange(1, 27)) == list(range(0, 26, 2))
    # 0 to 38: parts of three frames, the second is the middle. Without 3, 4 and 5 a part is empty.
    frames = np.setdiff1d(np.arange(39), [3, 4, 5])
    assert [None if at is None else int(frames[at]) for at in charts.slots(frames)] == [1, None, *range(7, 39, 3)]
    assert [at for at in charts.slots(np.array([5])) if at is not None] == [0]


def test_shared_facts_are_equal_for_all_rows(rows: list[ReportRow]) -> None:
    facts = [provenance(row) for row in rows]
    alike = shared(facts)
    assert {"code", "versions", "sha256 of test", "machine"} <= alike.keys()
    assert not {"recipe", "head"} & alike.keys()
    assert alike["seeds"] == "3407, 3408"
    assert facts[0]["sha256 of test"] == rows[0].result["dataset"]["splits"]["test"]["sha256"]


def test_the_page_is_complete_and_self_contained(text: str) -> None:
    self_contained(Page(text), text)


def test_the_table_has_the_figures_of_the_record(rows: list[ReportRow], text: str) -> None:
    lines = [cells for cells in Page(text).rows if len(cells) == 11]
    for row in rows:
        metrics = row.result["splits"]["test"]["metrics"]
        found = next(cells for cells in lines if cells[0].replace(" ", "").startswith(row.result["name"]))
        low, high = metrics["mAP"]["interval"]
        assert f"{100 * metrics['mAP']['mean']:.2f}" in found[1]
        assert f"{100 * metrics['mAP']['std']:.2f}" in found[1]
        assert f"{100 * low:.2f} to {100 * high:.2f}" in found[3]
        names = ("AP.looking", "AP.not_looking", "accuracy")
        assert [cell.strip() for cell in found[4:7]] == [f"{100 * metrics[name]['mean']:.2f}" for name in names]


def test_the_confusion_matrix_matches_the_predictions(rows: list[ReportRow], lam_tree: Path) -> None:
    row = rows[1]
    page = Page(render_page([row], lam_tree, True, lambda: None))
    labels = row.frames["label"].to_numpy()
    for name, label in (("looking", 1), ("not looking", 0)):
        called = (row.scores[:, labels == label] >= 0.5).sum(axis=1).mean()
        whole = (labels == label).sum()
        expected = [f"{n:,.1f} {100 * n / whole:.1f} %" for n in (called, whole - called)]
        assert [name, *expected] in [[cell.strip() for cell in cells] for cells in page.rows]


def test_each_crop_is_of_the_frame_named_below_it(text: str, lam_tree: Path) -> None:
    tiles = Page(text).tiles
    assert len(tiles) >= 8
    for picture, score, clip, track, frame in tiles:
        shown = Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2])))
        (path,) = (lam_tree / "videos_challenge" / clip / track).glob(f"{int(frame.split()[1]):05d}_*.jpg")
        difference = np.asarray(shown, float) - np.asarray(Image.open(path).convert("RGB"), float)
        # Noise that WebP smooths, but the random pictures of two frames differ by 30 and more a pixel.
        assert abs(difference).mean() < 15
        assert 0 <= float(score) <= 100


def test_names_from_files_are_escaped(rows: list[ReportRow], lam_tree: Path) -> None:
    """Tags and quotes in the row's name, its method, the clip, the track and a version."""
    result = copy.deepcopy(rows[0].result)
    result["name"] = result["config"]["method"] = result["environment"]["device"] = HOSTILE
    result["config"]["changes"] = result["dataset"]["note"] = HOSTILE
    groups = result["diagnosis"]["splits"]["test"]["groups"]
    groups['"><script>'] = {**groups["face size"], "groups": ['"><script>'] * len(groups["face size"]["groups"])}
    hostile = ReportRow(
        result, "test", rows[0].frames.assign(clip=HOSTILE, track=HOSTILE + rows[0].frames["clip"]), rows[0].scores
    )
    text = render_page([hostile, rows[1]], lam_tree, False, lambda: None)
    self_contained(Page(text), text)
    assert text.count("&lt;script&gt;alert(") > 10


def test_a_record_without_diagnosis_says_how_to_get_one(rows: list[ReportRow], lam_tree: Path) -> None:
    result = {**rows[0].result, "diagnosis": None}
    text = render_page([dataclasses.replace(rows[0], result=result)], lam_tree, True, lambda: None)
    assert "an older version of lamzoo wrote it; run the recipe again" in text
    assert "reliability diagram" not in text


def test_a_split_of_one_class_is_reported(rows: list[ReportRow], lam_tree: Path) -> None:
    result = copy.deepcopy(rows[0].result)
    metrics = result["splits"]["test"]["metrics"]
    for name in ("mAP", "AP.looking", "AP.not_looking"):
        metrics[name] = {"mean": None, "std": None, "interval": None, "per_seed": [None, None]}
    result["splits"]["test"].update(positives=0, confusion=dict.fromkeys(result["splits"]["test"]["confusion"], 0.0))
    for groups in result["diagnosis"]["splits"]["test"]["groups"].values():
        groups.update({key: [None] * len(groups["groups"]) for key in ("mAP", "low", "high")})
    text = render_page(
        [ReportRow(result, "test", rows[0].frames.assign(label=0), rows[0].scores)], lam_tree, True, lambda: None
    )
    self_contained(Page(text), text)
    for words in ("undefined: one class only", "No row has frames of both", "No track has frames of both"):
        assert words in text


def test_crops_are_shrunk_and_missing_ones_leave_a_gap(rows: list[ReportRow], tmp_path: Path) -> None:
    Image.fromarray(np.zeros((300, 150, 3), np.uint8)).save(tmp_path / "large.jpg")
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff no jpeg")
    shown = Image.open(io.BytesIO(base64.b64decode(data_uri(tmp_path / "large.jpg").partition(",")[2])))
    assert shown.size == (SIDE // 2, SIDE) and shown.format == "WEBP"
    assert data_uri(tmp_path / "damaged.jpg") is None
    text = render_page(rows, tmp_path, False, lambda: None)  # a folder without the crops
    assert "data:image" not in text and "no crop" in text
    self_contained(Page(text), text)


def test_rows_are_in_the_named_order_or_in_the_tables(rows: list[ReportRow], lam_tree: Path) -> None:
    names = [row.result["name"] for row in rows]
    for given, named, expected in (
        (rows[::-1], True, names[::-1]),
        (rows[::-1], False, sorted(names)),  # InternLSTM is in the published order, the probe comes after
    ):
        text = render_page(given, lam_tree, named, lambda: None)
        assert re.findall(r"<summary><b>(.*?)</b>", text) == expected


def test_the_command_writes_the_page(
    runs: Path, lam_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture, rows: list[ReportRow]
) -> None:
    target = tmp_path / "new" / "report.html"
    common = ["--out", str(runs), "--dataset", "ego4d", "--root", str(lam_tree), "-o", str(target)]
    assert bench.main(["report", *common]) == 0
    assert capsys.readouterr().out == f"{target}: 2 rows, {target.stat().st_size / 1e6:.2f} MB\n"
    name = rows[1].result["name"]
    folder = next(
        path.parent for path in runs.glob("results/*/*/result.json") if json.loads(path.read_text())["name"] == name
    )
    assert bench.main(["report", name, str(folder), *common]) == 0  # one row by both of its names
    assert re.findall(r"<summary><b>(.*?)</b>", target.read_text()) == [name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "EMPTY"], "no finished rows in .*ego4d; run some, .*--dataset ego4d, or .*--out DIR"),
        (["prob"], "no row prob in .*results/ego4d"),
        (["-o", "/dev/null/x/report.html"], "cannot write /dev/null/x: .*; write elsewhere"),
        (["-o", "EMPTY"], "is a folder; name a file: -o .*report.html"),
        (["--dataset", "ego4"], "unknown dataset 'ego4'; did you mean 'ego4d'"),
        (["--root", "EMPTY"], "EMPTY"),
        (["LOST"], r"cannot read .*predictions.csv: .*No such file.*; run the recipe again"),
        (["OTHER"], "is a row of dataset synthlam, but this report is on ego4d; add --dataset synthlam"),
        (["FRAMES"], r"22 of 88 key frames in .* are not in the test split of ego4d here; .*--root DIR"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gives_one_line_and_exit_status_2(
    arguments: list[str],
    words: str,
    runs: Path,
    lam_tree: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / "EMPTY").mkdir()
    source = next(runs.glob("results/*/*/result.json")).parent
    for name in ("LOST", "OTHER", "FRAMES"):
        shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("SHA256SUMS"))  # changed by hand
    (tmp_path / "LOST" / "predictions.csv").unlink()
    record = json.loads((source / "result.json").read_text())
    record["dataset"]["name"] = "synthlam"
    (tmp_path / "OTHER" / "result.json").write_text(json.dumps(record))
    path = tmp_path / "FRAMES" / "predictions.csv"
    path.write_text(path.read_text().replace("test01", "test99"))
    own = [str(tmp_path / word) if (tmp_path / word).exists() else word for word in arguments]
    given = dict(zip(own[::2], own[1::2], strict=True)) if own[0].startswith("-") else {}
    options = {"--out": runs, "--dataset": "ego4d", "--root": lam_tree, "-o": tmp_path / "r.html", **given}
    flags = [str(word) for option in options.items() for word in option]
    assert bench.main(["report", *([] if given else own), *flags]) == 2
    printed = capsys.readouterr()
    assert re.search(words, printed.err), printed.err
    assert printed.err.count("\n") == 1 and printed.out == ""
    assert not (tmp_path / "r.html").exists()


# Measures the page in a frame as wide as a phone or a screen, with every fold open and every picture decoded.
INSPECT = """<body style="margin:0">
<iframe id="page" src="{page}" style="border:0" width="{width}" height="900"></iframe><pre id="found"></pre>
<script>onload = async () => {{
  const loaded = performance.now(), page = document.getElementById("page").contentDocument;
  const write = facts => document.getElementById("found").textContent = JSON.stringify(facts);
  write({{loaded}});
  if ({width} == 0) return;
  page.querySelectorAll("details").forEach(fold => fold.open = true);
  const root = page.documentElement, images = [...page.images], drawn = [...page.querySelectorAll("image")];
  images.forEach(image => image.loading = "eager");
  const copies = drawn.map(each => Object.assign(new Image(), {{src: each.getAttribute("href")}}));
  const decoded = await Promise.all([...images, ...copies].map(each => each.decode().then(() => 1, () => 0)));
  const colour = element => page.defaultView.getComputedStyle(element).color;
  write({{loaded, beyond: root.scrollWidth - root.clientWidth,
    images: decoded.length, decoded: decoded.reduce((a, b) => a + b, 0),
    drawn: drawn.filter(each => each.getBoundingClientRect().width > 20).length, inline: drawn.length,
    paper: page.defaultView.getComputedStyle(page.body).backgroundColor,
    inks: [page.body, page.querySelector(".notes"), page.querySelector("a"), page.querySelector("svg")].map(colour)}});
}}</script>"""


def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"):
        if shutil.which(name):
            return name
    pytest.skip("no Chromium or Chrome here")


def inspect(page: Path, width: int, *options: str) -> dict:
    """Returns the browser's measurements; with width 0 it only opens the page."""
    wrapper = page.with_name(f"inspect{width}.html")
    wrapper.write_text(INSPECT.format(page=page.as_uri(), width=width))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    flags += ["--enable-logging=stderr", f"--user-data-dir={page.parent / 'profile'}", *options]
    done = subprocess.run(
        [browser(), *flags, wrapper.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    assert "CONSOLE" not in done.stderr, done.stderr  # a violated policy, a picture that cannot be decoded
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout)
    assert found and found[1], done.stderr
    return json.loads(found[1])


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2 of two CSS colours such as `rgb(1, 2, 3)`."""
    shades = []
    for colour in (one, other):
        values = np.array([int(value) for value in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        shades.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(shades) + 0.05) / (min(shades) + 0.05)


@pytest.mark.slow
def test_a_browser_opens_a_report_of_sixteen_rows_in_two_seconds(rows: list[ReportRow], tmp_path: Path) -> None:
    """The test split of SynthLAM with five seeds of noisy scores per row."""
    browser()
    frames = SynthLAM().frames("test")[[*KEY, "label", "image"]]
    record = json.loads((RECORDS / "synthlam" / "internlstm_flip_tta.json").read_text())
    record["diagnosis"] = rows[0].result["diagnosis"]
    random = np.random.default_rng(0)
    made = []
    for number in range(16):
        noise = random.normal(frames["label"] * 2 - 1, 2, (5, len(frames)))
        made.append(ReportRow({**record, "name": f"row_{number}"}, "test", frames, 1 / (1 + np.exp(-noise))))
    page = tmp_path / "report.html"
    page.write_text(render_page(made, synthlam.root(), False, lambda: None), encoding="utf-8")
    assert page.stat().st_size < 10e6
    # Milliseconds. On a busy machine the browser gets only a share of the cores.
    busy = max(1, os.getloadavg()[0] / cores())
    assert min(inspect(page, 0)["loaded"] for _ in range(3)) < 2000 * busy
    for width in (360, 1280):
        for scheme, dark in (("1", False), ("0", True)):
            options = "--virtual-time-budget=20000", f"--blink-settings=preferredColorScheme={scheme}"
            found = inspect(page, width, *options)
            assert found["beyond"] == 0  # nothing makes the page itself scroll sideways
            assert found["images"] == found["decoded"] > 16 * 4 * 10
            assert found["drawn"] == found["inline"] > 16 * 4 * 8
            assert (contrast(found["paper"], "rgb(0, 0, 0)") < 3) == dark
            for ink in found["inks"]:
                assert contrast(ink, found["paper"]) >= 4.5, (ink, found["paper"])


def test_a_committed_record_is_a_row_without_scores(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Its figures, calibration and provenance are there, and what needs scores is left out, with a sentence."""
    path = tmp_path / "page.html"
    name = "probe"
    assert bench.main(["report", name, "internlstm_flip_tta", "-o", str(path), "--out", str(tmp_path)]) == 0
    assert "2 rows" in capsys.readouterr().out
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    self_contained(page, text)
    record = json.loads((RECORDS / "synthlam" / f"{name}.json").read_text())
    mean = f"{100 * record['splits']['test']['metrics']['mAP']['mean']:.2f}"
    line = next(row for row in page.rows if row and row[0].strip().startswith(name))
    assert mean in line[1] and line[2].strip() == "2 (2-2)"
    assert text.count("This row is a record, without scores") == 2 and "Score timelines" not in text
    assert "No row has frames of both classes." in text and text.count("Reliability: share looking") == 2
    assert "2 rows are compared in 1 pair," in text
    assert bench.main(["report", "prob", "-o", str(path), "--out", str(tmp_path)]) == 2
    assert "did you mean 'probe'?" in capsys.readouterr().err
