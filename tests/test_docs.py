"""Every command of the documents is the program's: parsed here, and run by `pytest -m slow tests/test_docs.py`.

What a command needs and nobody has (Ego4D, 11 GB of weights, a video, the hub, a night) has a stand-in: see `COVERED`,
`WORDS`, `SHORTER` and `assumed`. The commands of a document run in one shell, in order, in a copy of the checkout.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import bench
from benchmarks.api.models import LoadedModel
from benchmarks.config.ensemble import resolve_row
from benchmarks.config.files import recipe_names
from benchmarks.config.reading import is_config_file
from benchmarks.video.live import Live
from registry import DATASETS, HEADS
from tests.conftest import HOME, make_lam_tree
from zoo import list_models

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    # commands.md is made from `--help`, whose examples are held below.
    *sorted(str(path.relative_to(HOME)) for path in (HOME / "docs").rglob("*.md") if path.name != "commands.md"),
    *sorted(str(path.relative_to(HOME)) for path in (HOME / "examples").glob("*/README.md")),
]
# Pages whose Python blocks are files of the checkout: the text before a block names its file.
PAGES = [document for document in DOCUMENTS if document.startswith("docs/contributing/")]
PROGRAMS = HOME / "tests" / "parts" / "stand_in_programs.py"

# How a command is covered, by what it begins with. One that fits nothing here fails.
COVERED = {
    r"(WANDB_MODE=offline )?python bench\.py ": "run; wandb and mlflow are modules that take anything",
    r"python -m (pytest|tools\.\w+|benchmarks\.speed)\b": "run, some of them shorter: SHORTER",
    r"python -m tests\.\w+ ": "its options are parsed; what it runs has tests of its own",
    r"torchrun --nproc-per-node=8 bench\.py ": "run, by two processes on the CPU",
    r"ruff (check|format) ": "run",
    r"(mkdir|ln|ls|head) |ROW=|python3 -m venv |pre-commit install": "run",
    r"\. \.?venv/bin/activate": "left out: nothing is installed there",
    r"git clone |cd ": "left out: commands run in a copy of the checkout",
    r"pip install ": "extras and packages are checked, not installed; plug-ins are installed into a folder",
    r"pytest( -m slow)?": "collected",
    r"mypy ": "its paths are checked",
    r"ego4d ": "a few clips made of SynthLAM in the place of the download",
    r"hf (download|auth login)": "a small InternViT or DINOv2 in the place of the large one",
}

# What is done in a shorter way when it is run.
SHORTER = {
    ". venv/bin/activate": "true",
    "python3 -m venv .venv && . .venv/bin/activate": "python3 -m venv .venv",
    "git clone https://github.com/YOU/lamzoo.git && cd lamzoo": "true",
    # It needs a person's marks, which tests/benchmarks/calibration makes.
    "python bench.py calibrate walk/ labels.csv -o my_model/": "python bench.py export gaze_nano_lstm -o my_model/",
    "python bench.py --recipe ensemble --seeds 5": "python bench.py --recipe ensemble --seeds 1",
    "python bench.py --recipe all --seeds table && python -m tools.update_docs --out runs": (
        "python bench.py --recipe all && python -m tools.update_docs --out runs"
    ),
    # It would run until Ctrl-C; tests/benchmarks/app starts it.
    "python bench.py app": "python bench.py app --help",
    "python -m tools.speed": "python -m tools.speed --quick --pairs 1",
    "python -m tools.speed map map_csv": "python -m tools.speed map map_csv --quick --pairs 1",
    "python -m tools.speed --record && python -m tools.update_docs --speed-only": (
        "python -m tools.speed small_commands --record --pairs 1 && python -m tools.update_docs --speed-only"
    ),
}

# Scales at which everything is quick. Names stay as they are: the figures mean nothing.
SCALES = {
    "synthlam": """
windows = dict(stride=dict(train=24, val=24, test=12))
training = dict(epochs=1, batch_size=64)
pixels = dict(
    backbones=dict(gaze_resnet18=dict(size=32)),
    windows=dict(stride=dict(train=24, val=24, test=24)),
    init=dict(gaze360="random"),
    training=dict(epochs=1, batch_size=8),
)
""",
    "ego4d": """
windows = dict(stride=dict(train=6, val=3, test=1))
heads = dict(lstm=dict(projection=8, hidden=8, mlp=(8, 8, 8)), gru=dict(projection=8, hidden=8, mlp=(8, 8, 8)))
training = dict(epochs=1, batch_size=64)
pixels = dict(
    backbones=dict(gaze_resnet18=dict(size=32)),
    windows=dict(stride=dict(train=24, val=24, test=24)),
    training=dict(epochs=1, batch_size=8),
)
""",
}

# In the place of huggingface_hub's own, in every process: an upload that looks at what it is given.
SITE = """
import huggingface_hub
from pathlib import Path


class HfApi:
    def create_repo(self, repo_id, private, exist_ok):
        assert private

    def upload_folder(self, *, repo_id, folder_path, commit_message, allow_patterns):
        assert {"config.json", "card.json", "README.md"} <= {path.name for path in Path(folder_path).iterdir()}
        return type("Commit", (), {"commit_url": "https://example.invalid/" + repo_id})


huggingface_hub.HfApi = HfApi
"""

# In the place of wandb and mlflow, which test_tracking.py looks at.
ANYTHING = """
from unittest.mock import MagicMock


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return MagicMock()
"""


class Command(NamedTuple):
    """A line of a document.

    Attributes:
        document: path from the root of the checkout.
        line: its number.
        text: without `$` and comment.
    """

    document: str
    line: int
    text: str


def blocks(document: str) -> Iterator[tuple[str, int, list[str]]]:
    """Language, number of the first line, and lines of each fenced block."""
    lines = (HOME / document).read_text(encoding="utf-8").splitlines()
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith("```")]
    for start, end in zip(fences[::2], fences[1::2], strict=True):
        yield lines[start].strip().removeprefix("```"), start + 2, lines[start + 1 : end]


def without_comment(line: str) -> str:
    return re.sub(r"\s+# .*", "", line).strip()


def commands(document: str) -> list[Command]:
    """The commands of a document's shell and console blocks; lines of a console without `$` are its output."""
    found = []
    for language, first, lines in blocks(document):
        for number, line in enumerate(lines, start=first):
            if language == "console" and line.startswith("$ "):
                found.append(Command(document, number, without_comment(line.removeprefix("$ "))))
            elif language == "shell":
                found.append(Command(document, number, without_comment(line)))
    return found


def inline(document: str) -> list[Command]:
    """Commands within sentences, which may be the beginning of one."""
    text = (HOME / document).read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
    return [
        Command(document, number, found)
        for number, line in enumerate(prose.splitlines(), start=1)
        for found in re.findall(r"`((?:python bench\.py|python -m|pip install|pytest) [^`]+)`", line)
    ]


def examples() -> list[Command]:
    """Commands that `--help` shows."""
    return [
        Command(f"benchmarks/commands/{name}.py", 0, line.strip())
        for name in bench.COMMANDS
        for line in re.sub(r"\\\n\s*", "", importlib.import_module(f"benchmarks.commands.{name}").__doc__).splitlines()
        if re.match(r"  (python|torchrun) ", line)
    ]


def parts(command: Command) -> list[list[str]]:
    """The words of each program of a command."""
    words = shlex.split(command.text.partition(" > ")[0])
    out: list[list[str]] = [[]]
    for word in words:
        out.append([]) if word == "&&" else out[-1].append(word)
    return out


ALL = [command for document in DOCUMENTS for command in commands(document)]


def name_of(command: Command) -> str:
    return f"{command.document}:{command.line} {command.text}"


# -- parsed -------------------------------------------------------------------------------------------------------


class Parsed(Exception):
    """What a parser found, in the place of doing it."""


def _stopping(parse: Callable) -> Callable:
    def stop(self: argparse.ArgumentParser, *given: Any) -> None:
        raise Parsed(parse(self, *given))

    return stop


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace | None:
    """The options of a command as its own parser finds them; None for programs of others.

    Raises:
        SystemExit: its parser refuses it.
    """
    if words[0].startswith("WANDB_MODE="):
        words = words[1:]
    if words[0] == "torchrun":
        words = ["python", *words[2:]]
    if words[:2] == ["python", "bench.py"]:
        name, arguments = bench.command_of(words[2:])
        found: list[argparse.Namespace] = []
        module = importlib.import_module(f"benchmarks.commands.{name}")
        monkeypatch.setattr(module, "run", lambda args: found.append(args) or 0)
        assert bench.main([name, *arguments]) == 0
        return found[0]
    if words[:2] == ["python", "-m"] and words[2] != "pytest":
        for method in ("parse_args", "parse_known_args"):
            monkeypatch.setattr(argparse.ArgumentParser, method, _stopping(getattr(argparse.ArgumentParser, method)))
        monkeypatch.setattr(sys, "argv", words[2:])
        with pytest.raises(Parsed):
            runpy.run_module(words[2], run_name="__main__")
    return None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_stand_where_they_are_looked_for(document: str) -> None:
    """In blocks that say what they are; not indented, and in no block without a language."""
    program = re.compile(r"\s*(\$ )?(python3? |pip |torchrun |pytest|hf |conda |git )")
    text = (HOME / document).read_text(encoding="utf-8")
    assert not [line for line in text.splitlines() if line.startswith("    ") and program.match(line)]
    for language, first, lines in blocks(document):
        assert language in ("", "console", "shell", "python", "yaml", "fish", "bibtex"), f"{document}:{first}"
        if language == "":
            assert not any(map(program.match, lines)), f"{document}:{first}"
        if language == "console":
            assert lines[0].startswith("$ "), f"{document}:{first}"


@pytest.mark.parametrize("command", ALL, ids=name_of)
def test_commands_are_known_and_parsed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in parts(command):
        text = " ".join(words)
        assert sum(re.match(pattern, text) is not None for pattern in COVERED) == 1, text
        args = parsed(words, monkeypatch)
        if args is None or getattr(args, "recipe", None) in (None, "all") or getattr(args, "plugin", None):
            continue
        if command.document in PAGES:  # its parts are not in this checkout
            continue
        for recipe in args.recipe.split(","):
            if recipe in recipe_names():
                keys = {key: getattr(args, key) for key in ("backbone", "weights", "head") if hasattr(args, key)}
                resolve_row(recipe, args.dataset, settings=args.set, **keys)
            else:
                assert is_config_file(recipe), recipe


def test_shortened_commands_are_there() -> None:
    assert set(SHORTER) <= {command.text for command in ALL}


@pytest.mark.parametrize("command", examples(), ids=name_of)
def test_examples_of_help_are_parsed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in parts(command):
        parsed(words[:1] + [word for word in words[1:] if word != "8"], monkeypatch)


@pytest.mark.parametrize("command", [c for d in DOCUMENTS for c in inline(d)], ids=name_of)
def test_commands_within_sentences(command: Command, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Their options exist; what a reader is to add may be missing, and capitals stand for anything."""
    if "COMMAND" in command.text:
        return
    for words in parts(command):
        if words[0] == "pip":
            continue  # as in the blocks; the extras are those of setup.cfg
        try:
            parsed(words, monkeypatch)
        except SystemExit:
            assert "the following arguments are required" in capsys.readouterr().err


def sentences(document: str) -> Iterator[str]:
    """Sentences of a document's prose, list items and table cells; code counts as one word."""
    text = (HOME / document).read_text(encoding="utf-8")
    hidden = r"^```.*?^```$|<!-- \S+ .*?rendered.*?<!-- end of .*?-->|<!--.*?-->"
    text = re.sub(hidden, "", text, flags=re.MULTILINE | re.DOTALL)
    for block in re.split(r"\n\s*\n|\n(?=\s*[-*] |\s*\d+\. |#|\|)", text):
        for cell in block.strip().strip("|").split("|") if block.lstrip().startswith("|") else [block]:
            prose = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", cell))
            yield from re.split(r"(?<=[.!?:;])\s+", " ".join(prose.split()))


@pytest.mark.parametrize("document", [*DOCUMENTS, "SECURITY.md", "benchmarks/data/synthlam/README.md"])
def test_sentences_are_short(document: str) -> None:
    """At most 30 words: most readers have another first language."""
    assert not [sentence for sentence in sentences(document) if len(sentence.split()) > 30]


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/design.md"])
def test_paths_exist(document: str) -> None:
    """Files and folders that are named by their path from the root or from benchmarks/."""
    text = (HOME / document).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:\w+/)+(?:[\w-]+\.\w+)?)`", text)
    assert len(paths) >= 5
    for path in paths:
        assert (HOME / path).exists() or (HOME / "benchmarks" / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_extras_exist(document: str) -> None:
    from benchmarks.commands.doctor import read_setup

    for extras in re.findall(r"pip install ['\"]\.\[([\w,]+)\]", (HOME / document).read_text(encoding="utf-8")):
        assert set(extras.split(",")) <= set(read_setup()["options.extras_require"])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = (HOME / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert target.startswith("http") or (HOME / document).parent.joinpath(target).exists(), target


def test_the_workflow_runs_what_contributors_run() -> None:
    jobs = yaml.safe_load((HOME / ".github/workflows/checks.yml").read_text(encoding="utf-8"))["jobs"]
    steps = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert steps["readme"] == [".ci/run"] and os.access(HOME / ".ci/run", os.X_OK)
    known = {command.text for command in commands("CONTRIBUTING.md")}
    assert set(steps["code"]) - known == {"mkdocs build --strict"}


# -- Python -------------------------------------------------------------------------------------------------------


def _head(code: str, folder: Path) -> None:
    from registry import HEADS, load_plugin
    from tests.contracts import check_head

    (folder / "my_head.py").write_text(code)
    load_plugin(folder / "my_head.py")
    try:
        check_head(dict(type="MeanPool"))
    finally:  # no other test is to meet it
        del HEADS._module_dict["MeanPool"], HEADS.places["MeanPool"]


def _open(code: str, folder: Path) -> None:
    scope: dict[str, Any] = {}
    *statements, shown = code.strip().splitlines()
    exec("\n".join(statements), scope)
    assert eval(shown, scope)[1] == ("original", "flipped")


def _ensemble(code: str, folder: Path) -> None:
    (folder / "mine.py").write_text(code)
    row = resolve_row(str(folder / "mine.py"))
    assert [member.name for member in row.members] == [
        "internlstm_flip_tta", "interngru_flip_tta+head.hidden=64", "gazepose",
    ]  # fmt: skip


def _recipe(code: str, folder: Path) -> None:
    """The page's recipe in Python is that in YAML, which has ten lines."""
    (data,) = (lines for language, _, lines in blocks("docs/own-recipe.md") if language == "yaml")
    (folder / "my_recipe.py").write_text(code)
    (folder / "my_recipe.yaml").write_text("\n".join(data))
    rows = [resolve_row(str(folder / f"my_recipe.{ending}")) for ending in ("py", "yaml")]
    assert rows[0].as_dict() == rows[1].as_dict()
    assert (rows[0].head["type"], rows[0].windows.radius, rows[0].training.lr, len(data)) == ("gru", 5, 1e-3, 10)


class Quick(LoadedModel):
    """Random weights, and a detector that finds bright squares: no packages of networks are needed."""

    def predict(self, source: Any, boxes: Any = None, **options: Any) -> pd.DataFrame:
        if isinstance(source, str):
            options |= {"detector": "bright", "detections": 7.5}
        return super().predict(source, boxes, **options)

    def live(self, **options: Any) -> Live:
        return super().live(detector="bright", detections=7.5, **options)


class Filmed:
    """In the place of OpenCV's: a camera with 15 pictures a second, BGR."""

    def __init__(self, number: int) -> None:
        self.left = 30

    def read(self) -> tuple[bool, np.ndarray | None]:
        from tests.benchmarks.video.parts import draw, squares

        time.sleep(1 / 15)
        self.left -= 1
        return self.left >= 0, draw(squares(self.left))[..., ::-1]


def _model(code: str, folder: Path) -> None:
    """Pasted into a program in a folder with a video, frames, their boxes, and crops."""
    pytest.importorskip("cv2")
    from tests.benchmarks.video.parts import SQUARE, draw, make, model, squares

    make(folder / "walk.mp4", 60)
    lines = []
    for number in range(5):
        left, top, _ = squares(number)[0]
        lines.append(f"{left},{top},{left + SQUARE},{top + SQUARE}\n")
        for name, picture in {"frames": draw(squares(number)), "crops": draw([(0, 0, 99)], (30, 40))}.items():
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / name / f"{number}.jpg")
    (folder / "boxes.csv").write_text("".join(lines))
    asked: list[str] = []
    scope: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("zoo.load_model", lambda name: asked.append(name) or Quick(model()), raising=False)
        patched.setattr("cv2.VideoCapture", Filmed)
        patched.chdir(folder)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(code, scope)
    assert len(asked) == 1 and asked[0] in set(list_models()["name"])
    if "live" in scope:
        assert re.search(r"^1 0\.\d\d (looks)?$", said.getvalue(), re.MULTILINE)
    else:
        assert len(scope["faces"]) >= 5 and {"score", "looking"} < set(scope["faces"])


def _benchmark(code: str, folder: Path) -> None:
    """Run in an empty folder, with the checkout on the path."""
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("internlstm_flip_tta+head=gru+limit=200 0.")
    assert "internlstm_flip is better" in done.stdout
    assert (folder / "runs").is_dir()


LONG = ("from benchmarks import compare, results, run",)  # trains two rows

# Document and first words of a block -> what runs it.
PYTHON = {
    ("README.md", "from torch.nn import Linear"): _head,
    ("docs/models.md", "from zoo.models import open_model"): _open,
    ("docs/python.md", "from benchmarks import compare, results, run"): _benchmark,
    ("docs/own-recipe.md", '_base_ = ["lamzoo::internlstm_flip_tta"]'): _recipe,
    ("docs/recipes.md", "version = 1"): _ensemble,
    ("docs/python.md", "from zoo import list_models, load_model"): _model,
    ("docs/python.md", "from pathlib import Path"): _model,
    ("docs/python.md", "import time"): _model,
}


@pytest.mark.parametrize(
    ("document", "code"),
    [
        pytest.param(document, "\n".join(lines) + "\n", marks=[pytest.mark.slow] * (lines[0] in LONG))
        for document in DOCUMENTS
        if document not in PAGES
        for language, _, lines in blocks(document)
        if language == "python"
    ],
)
def test_python_runs(document: str, code: str, tmp_path: Path) -> None:
    PYTHON[document, code.partition("\n")[0]](code, tmp_path)


def copy_checkout(folder: Path) -> None:
    """Copy the files of the checkout that git tracks or would track."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(listed, cwd=HOME, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (HOME / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(HOME / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)  # ruff leaves out what git ignores


def follow(page: str, checkout: Path) -> None:
    """Write the Python blocks of a page as files; imports for a file that exists go to its top, the rest to its end."""
    lines = (HOME / page).read_text(encoding="utf-8").splitlines()
    for language, first, block in blocks(page):
        if language != "python":
            continue
        path = checkout / re.findall(r"`([\w/]+\.py)`", "\n".join(lines[: first - 1]))[-1]
        if not path.exists():
            path.write_text("\n".join(block) + "\n")
            continue
        imports = [line for line in block if re.match("from|import", line)]
        rest = [line for line in block if line not in imports]
        top, registry, bottom = path.read_text().partition("from registry import")
        assert registry
        path.write_text("\n".join([top + "\n".join(imports), registry + bottom, *rest]) + "\n")


# What the pages of contributors add, each found by a test that existed before.
FOUND = [
    "tests/backbones/test_contract.py::test_contract[colour_grid]",
    "tests/benchmarks/config/test_config.py::test_every_recipe_resolves[ego4d-internlstm_long]",
    "tests/benchmarks/data/test_dataset.py::test_contract[lab]",
    "tests/heads/test_heads.py::test_contract[key_and_mean]",
    "tests/test_bench.py::test_list_and_show_name_every_part",
]


@pytest.mark.slow
def test_tests_pick_up_the_parts_of_the_pages(tmp_path: Path) -> None:
    """All pages are followed in one copy of the checkout."""
    copy_checkout(tmp_path)
    for page in PAGES:
        follow(page, tmp_path)
    if importlib.util.find_spec("ruff"):  # installed by the extra dev, not by test
        subprocess.run([sys.executable, "-m", "ruff", "check", "--fix", "-q", "."], cwd=tmp_path, check=True)
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FOUND]
    done = subprocess.run(tests, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"{len(FOUND)} passed" in done.stdout


# -- run ----------------------------------------------------------------------------------------------------------


def write_models(folder: Path) -> None:
    """Small models in the formats of large ones, by their names on the hub."""
    from tests.backbones.test_hf import snapshot
    from tests.backbones.test_internvit import official_folder

    folder.mkdir()
    official_folder("6b", folder / "InternViT-6B-448px-V1-5")
    snapshot(folder / "dinov2-small", "dinov2")


def write_hub(folder: Path) -> None:
    """The hub's cache with one model in it, as its client leaves it."""
    from zoo.models import copy_model

    place = folder / "models--OWNER--NAME"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    copy_model("internlstm_nano", place / "snapshots" / commit)


class Place(NamedTuple):
    """Where documents are tried.

    Attributes:
        checkout: a copy of this one, at the small scales, with some rows run.
        words: what stands in a document -> what is put in its place.
        environment: of its shells.
        site: folder of Python's path that has what is put in the place of a library.
    """

    checkout: Path
    words: dict[str, str]
    environment: dict[str, str]
    site: Path


def run(folder: Path, lines: list[str], place: Place) -> None:
    """Run commands in one shell."""
    script = ["set -euo pipefail"]
    for line in lines:
        line = re.sub(r"(python -m tests\.\w+) [^&]*", r"\1 --help ", SHORTER.get(line, line))
        for word, stand_in in place.words.items():
            line = line.replace(word, stand_in)
        script += [f"echo {shlex.quote('$ ' + line)} >&2", line]
    path = [place.site, folder / ".installed", *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env={**place.environment, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The copy of the checkout, and what documents take for granted everywhere: a data set, weights, three rows."""
    pytest.importorskip("av")
    pytest.importorskip("cv2")
    from tests.benchmarks.pipeline.test_ego4d_end_to_end import make_videos

    root = tmp_path_factory.mktemp("documents")
    checkout = root / "checkout"
    copy_checkout(checkout)
    for dataset, scale in SCALES.items():
        with (checkout / "benchmarks" / "datasets" / f"{dataset}.py").open("a") as file:
            file.write(scale)

    programs = root / "programs"
    programs.mkdir()
    for name in ("pip", "ego4d", "hf", "mypy", "pytest"):
        (programs / name).write_text(f"#!{sys.executable}\n{PROGRAMS.read_text()}")
        (programs / name).chmod(0o755)
    (root / "site").mkdir()
    (root / "site" / "sitecustomize.py").write_text(SITE)
    for tracker in ("wandb", "mlflow"):
        (root / "site" / f"{tracker}.py").write_text(ANYTHING)
    write_models(root / "models")
    write_hub(root / "hub")
    make_videos(root / "raw", clips=4)
    words = {
        "--nproc-per-node=8": "--nproc-per-node=2",
        "--root DIR": f"--root {root / 'ego4d'}",
        "--test-root DIR": f"--test-root {root / 'ego4d'}",
        "/data/ego4d": str(root / "ego4d"),
        "/models/": f"{root / 'models'}/",
    }
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HF_HUB_CACHE": str(root / "hub"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "STAND_IN_RAW": str(root / "raw"),
        "STAND_IN_MODELS": str(root / "models"),
    }
    found = Place(checkout, words, environment, root / "site")
    shutil.copytree(root / "raw", root / "ego4d")
    prepared = [
        "python bench.py prepare --root DIR --split-lists official",
        "python bench.py --recipe internlstm,internlstm_flip_tta,internlstm_flip_tta_smooth,probe --seeds 3",
    ]
    run(checkout, prepared, found)
    return found


def make_lab(root: Path) -> None:
    """A small data set in the form of the page on data sets; labels alternate, so that any odd stride meets both."""
    make_lam_tree(root)
    dataset = DATASETS.build({"type": "ego4d", "root": root})
    for split in dataset.splits():
        table = dataset.frames(split)[["clip", "track", "frame", "label", "image"]]
        table.assign(label=np.arange(len(table)) % 2).to_csv(root / f"{split}.csv", index=False)


def write_checkpoints(folder: Path, models: Path) -> None:
    """Checkpoints in the published format: InternLSTM's head at the scale of `SCALES`, and GazePose."""
    import torch

    from tests.zoo.test_upstream import save, wrap
    from zoo.published import PUBLISHED

    width = json.loads((models / "InternViT-6B-448px-V1-5" / "config.json").read_text())["hidden_size"]
    sizes = {"projection": 8, "hidden": 8, "mlp": (8, 8, 8)}
    head = HEADS.build({"type": "lstm", "feature_dim": width, "window": 7, **sizes})
    save(folder, {"state_dict": wrap(head.state_dict())}, "best.pth")
    wanted = PUBLISHED["gazepose"].tensors({"headpos_emeb": (8, 512)}).wanted
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.rand(tensor.shape, generator=generator) / 10 if tensor.is_floating_point() else torch.tensor(1)
        for name, tensor in wanted.items()
    }
    save(folder, {"state_dict": state}, "gazepose_best.pth")


def write_priors(folder: Path, root: Path) -> None:
    """Priors in the format of GazePose's authors, one file per split."""
    dataset = DATASETS.build({"type": "ego4d", "root": root})
    points = [
        [0.5, 0.6, 0.0, 0.9],
        [0.6, 0.4, 0.0, 0.9],
        [0.4, 0.4, 0.0, 0.9],
        [0.6, 0.8, 0.0, 0.9],
        [0.4, 0.8, 0.0, 0.9],
    ]
    for split, name in (("train", "train_headpose"), ("val", "val_headpose-all"), ("test", "test_headpose")):
        poses: dict[str, list] = {}
        marks: dict[str, dict] = {}
        for clip, track, frame, unique_id in dataset.frames(split)[["clip", "track", "frame", "unique_id"]].itertuples(
            False
        ):
            key = f"{clip}:{track}:{unique_id}:{frame:05d}" if unique_id else f"{clip}:{track}:{frame}"
            poses[key] = [10.0, -5.0, 1.0, *([] if unique_id else [0, 0, 0])]
            marks.setdefault(clip, {}).setdefault(track, {})[unique_id or str(frame)] = points
        (folder / f"{name}.json").write_text(json.dumps(poses))
        (folder / f"{split}_mesh.json").write_text(json.dumps(marks))


def assumed(document: str, folder: Path, place: Place) -> None:
    """Make what a document takes for granted: rows, videos, checkpoints, prediction files."""
    row = "python bench.py --recipe internlstm_flip_tta"
    on_ego4d = f"{row} --dataset ego4d --root DIR --weights /models/InternViT-6B-448px-V1-5"
    before = {
        "README.md": [on_ego4d],
        "docs/models.md": [on_ego4d, "python bench.py export internlstm_nano -o mine"],
        "docs/report.md": [on_ego4d],
        "docs/statistics.md": [f"{row} --seeds 3 --out other_runs"],
    }
    run(folder, before.get(document, []), place)
    if document in PAGES:
        follow(document, folder)
    if document == "docs/own-recipe.md":
        (data,) = (lines for language, _, lines in blocks(document) if language == "yaml")
        (folder / "my_recipe.yaml").write_text("\n".join(data))
    if document == "docs/contributing/add-a-dataset.md":
        make_lab(folder / "LAB")
    if document == "README.md":
        files = folder / "runs/results/ego4d/internlstm_flip_tta+weights=InternViT-6B-448px-V1-5"
        for name, source in {
            "val_gt": "groundtruth_val.csv",
            "val_pred": "seed3407/val.csv",
            "original": "seed3407/test.csv",
            "flipped": "seed3407/test.csv",
        }.items():
            shutil.copy(files / source, folder / f"{name}.csv")
        code = next(lines for language, _, lines in blocks(document) if language == "python")
        (folder / "my_head.py").write_text("\n".join(code) + "\n")
    if document in ("README.md", "docs/features.md"):
        for number in range(3):
            (folder / "crops" / "clip").mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 255, (30, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "crops" / "clip" / f"{number}.jpg")
    if document in ("README.md", "docs/ego4d.md", "docs/recipes.md"):
        import torch

        from tests.zoo.test_upstream import gaze360_state, save, wrap

        write_checkpoints(folder, Path(place.words["/models/"]))
        save(folder, {"state_dict": wrap(gaze360_state()), "epoch": torch.tensor(1)}, "gaze360_model.pth.tar")
        write_priors(folder, Path(place.words["/data/ego4d"]))
    if any(" predict " in command.text for command in commands(document)):
        from tools.check_video import clips_of, make_video

        make_video(folder / "walk.mp4", clips_of("test")[:1], frames=20)
        shutil.copy(folder / "walk.mp4", folder / "VIDEO.mp4")


# What a document's commands need beside what the tests need anyway.
NEEDS = {
    "CONTRIBUTING.md": "pre_commit",
    "docs/features.md": "ray",
    "docs/models.md": "onnxruntime",
    "docs/recipes.md": "tensorboard",
}


@pytest.mark.slow
@pytest.mark.parametrize("document", [document for document in DOCUMENTS if commands(document)])
def test_commands_run(document: str, place: Place, tmp_path: Path) -> None:
    if document in NEEDS:
        pytest.importorskip(NEEDS[document])
    folder = tmp_path / "checkout"
    shutil.copytree(place.checkout, folder)
    assumed(document, folder, place)
    run(folder, [command.text for command in commands(document)], place)
