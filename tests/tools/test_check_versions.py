"""What `tools/check-versions` counts."""

import runpy
import subprocess
import sys
from pathlib import Path

from tests.conftest import HOME

RECORD = HOME / "benchmarks" / "records" / "reliability" / "versions.json"

TESTS = """
import pytest

def test_passes(): pass
def test_fails(): assert False
def test_is_skipped(): pytest.skip()

@pytest.fixture
def broken():
    yield
    raise ValueError

def test_is_torn_down(broken): pass
"""


def test_outcomes_are_those_of_pytest(tmp_path: Path) -> None:
    """Also of a module that is skipped, and of one that cannot be imported."""
    (tmp_path / "test_these.py").write_text(TESTS)
    (tmp_path / "test_skipped.py").write_text("import pytest\npytest.skip(allow_module_level=True)")
    (tmp_path / "test_broken.py").write_text("1 / 0")
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    subprocess.run([*line, "--junit-xml", "report.xml"], cwd=tmp_path, stdout=subprocess.DEVNULL, check=False)
    script = runpy.run_path(str(HOME / "tools" / "check-versions"))
    found = script["outcomes"](tmp_path / "report.xml")
    assert {name.rpartition("::")[2].rpartition(".")[2]: outcome for name, outcome in found.items()} == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_is_skipped": "skipped",
        "test_is_torn_down": "failed",
        "test_skipped": "skipped",
        "test_broken": "failed",
    }
