"""A new plug-in works as it is written: its own test passes, it installs, and lamzoo finds it."""

import importlib.metadata
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import bench
from benchmarks.config.ensemble import resolve_row
from benchmarks.rows.schema import read_result
from registry import BACKBONES, DATASETS, DETECTORS, HEADS, PRIORS

HOME = Path(__file__).resolve().parents[3]
REGISTRIES = {"backbone": BACKBONES, "head": HEADS, "dataset": DATASETS, "prior": PRIORS, "detector": DETECTORS}
NAMES = {kind: f"fresh_{kind}" for kind in REGISTRIES}


def build_wheel(folder: Path, out: Path) -> Path:
    """What `pip install FOLDER` builds, without its isolation."""
    code = "from setuptools import build_meta as b; import sys; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    for kind, name in NAMES.items():
        assert bench.main(["new-plugin", name, "--kind", kind, "-o", str(folder / name)]) == 0
    return folder


@pytest.mark.slow
def test_their_own_tests_pass(written: Path) -> None:
    """As the README says, from this checkout; one process for all five, whose modules have names of their own."""
    tests = [str(written / name) for name in NAMES.values()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=HOME,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 passed" in done.stdout


def test_what_is_written_is_clean_and_without_placeholders(written: Path) -> None:
    for kind, name in NAMES.items():
        files = sorted(path.name for path in (written / name).iterdir() if path.is_file())
        assert files == ["README.md", f"lamzoo_{name}.py", "pyproject.toml", f"test_lamzoo_{name}.py"]
        for file in files:
            text = (written / name / file).read_text()
            assert not any(word in text for word in ("my_part", "my-part", "MyPart", "KIND", "FOLDER", "USE "))
        assert kind in (written / name / "README.md").read_text()


@pytest.mark.parametrize(("kind", "file"), [("dataset", "val.csv"), ("prior", "head_pose.csv")])
def test_rows_longer_than_the_header_are_refused(written: Path, tmp_path: Path, kind: str, file: str) -> None:
    """pandas alone would take `0,` as an index and read all other columns one too far to the right."""
    lines = {"val.csv": "clip,track,frame,label,image\n0,1,2,3,1,5.png\n"}
    lines["head_pose.csv"] = "clip,track,frame,yaw,pitch,roll\n0,1,2,3,1,5,6\n"
    (tmp_path / file).write_text(lines[file])
    code = (
        f"import sys; sys.path.insert(0, {str(written / NAMES[kind])!r}); import pandas, lamzoo_{NAMES[kind]} as it\n"
        f"part = it.Fresh{kind.capitalize()}(*{[str(tmp_path)] * (2 if kind == 'prior' else 1)})\n"
        + ("part.frames('val')" if kind == "dataset" else "part.read(pandas.DataFrame())")
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert f"cannot read {tmp_path / file} (line 2 has " in done.stderr.splitlines()[-1]


def test_an_installed_one_is_found_by_its_entry_point(written: Path, tmp_path: Path) -> None:
    wheel = build_wheel(written / "fresh_head", tmp_path)
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    assert (site / "lamzoo_fresh_head.py").is_file()
    found = importlib.metadata.distributions(path=[str(site)])
    entries = {entry.name: entry.value for each in found for entry in each.entry_points}
    assert entries == {"fresh_head": "lamzoo_fresh_head"}
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import bench; sys.exit(bench.main(['show', 'fresh_head']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "head fresh_head" in done.stdout


def test_a_recipe_is_written_twice_and_runs_from_anywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench.main(["new-plugin", "eleven_frames", "--kind", "recipe"]) == 0
    assert "python bench.py --recipe lamzoo_eleven_frames/eleven_frames.py\n" in capsys.readouterr().out
    folder = tmp_path / "lamzoo_eleven_frames"
    names = ["README.md", "eleven_frames.py", "eleven_frames.yaml", "test_eleven_frames.py"]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        text = (folder / name).read_text()
        assert not any(word in text for word in ("my_part", "KIND", "FOLDER", "USE "))
    row, same = (resolve_row(str(folder / f"eleven_frames.{ending}")) for ending in ("py", "yaml"))
    assert (row.name, row.windows.radius) == ("eleven_frames", 5)
    assert row.as_dict() == same.as_dict()
    assert bench.main(["show", str(folder / "eleven_frames.yaml")]) == 0
    assert "The same row as eleven_frames.py, as data" in capsys.readouterr().out
    assert bench.main(["new-plugin", "probe", "--kind", "recipe"]) == 2
    assert "a recipe called 'probe' exists (" in capsys.readouterr().err


def test_readmes_name_no_folder_of_this_machine(written: Path) -> None:
    for kind, name in NAMES.items():
        readme = (written / name / "README.md").read_text()
        assert str(written) not in readme
        assert f"python -m pytest {name} " in readme
        assert f"--plugin {name}/lamzoo_{name}.py" in readme, kind


@pytest.mark.slow
def test_the_command_of_a_dataset_runs_as_it_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """On the made-up crops that come with it, bright where they are labelled looking: a probe finds that out."""
    folder = tmp_path / "fresh_lab"
    assert bench.main(["new-plugin", "fresh_lab", "--kind", "dataset", "-o", str(folder)]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    done = subprocess.run(
        [sys.executable, *command[1:], "--out", str(tmp_path / "runs")],
        cwd=HOME, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = read_result(next((tmp_path / "runs").glob("results/*/*/result.json")))
    assert record["splits"]["val"]["metrics"]["mAP"]["mean"] == 1.0


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def refused(*arguments: str) -> str:
        assert bench.main(["new-plugin", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "a head called 'lstm' exists (" in refused("lstm", "--kind", "head", "-o", str(tmp_path / "a"))
    assert "'My-Head' cannot name a part" in refused("My-Head", "--kind", "head")
    (tmp_path / "file").touch()
    assert "is not an empty folder" in refused("other", "--kind", "head", "-o", str(tmp_path))
    with pytest.raises(SystemExit):
        bench.main(["new-plugin", "other", "--kind", "heads"])
    assert "invalid choice: 'heads'" in capsys.readouterr().err
