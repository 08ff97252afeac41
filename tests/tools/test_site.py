"""The documents as a site: it builds without a warning, and asks no other host for anything."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("material")

from tests.conftest import HOME
from tools import site


def build(folder: Path, config: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})


def test_the_site_builds_and_is_whole(tmp_path: Path) -> None:
    done = build(tmp_path / "site", HOME / "mkdocs.yml")
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    pages = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*.html")}
    assert {str(path.relative_to(HOME / "docs").with_suffix(".html")) for path in HOME.glob("docs/**/*.md")} <= pages
    assert (tmp_path / "site" / "search" / "search_index.json").stat().st_size > 50_000
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|source)[^>]* src(?:set)?="([^"]+)"|<link[^>]* href="([^"]+)"', text)
        assert not [url for pair in loaded for url in pair if re.match(r"(https?:)?//", url)], page


def test_a_link_to_nowhere_fails(tmp_path: Path) -> None:
    for name in ("mkdocs.yml", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "tools/site.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(HOME / name, tmp_path / name)
    records = "benchmarks/records"
    for name in ("docs", "examples", "benchmarks/data/synthlam", f"{records}/photos", f"{records}/people"):
        shutil.copytree(HOME / name, tmp_path / name, ignore=shutil.ignore_patterns("*.xz", "*.json", "*.csv"))
    with (tmp_path / "docs" / "faq.md").open("a", encoding="utf-8") as file:
        file.write("\n[nowhere](absent.md) [no section](glossary.md#absent)\n")
    done = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert done.returncode != 0
    assert "absent.md" in done.stderr and "glossary.md#absent" in done.stderr


@pytest.mark.parametrize(
    ("page", "target"), [("faq.md", "docs/faq.md"), ("project/examples/x/README.md", "examples/x/README.md")]
)
def test_a_page_is_a_file_of_the_checkout(page: str, target: str) -> None:
    from pathlib import PurePosixPath

    assert str(site.in_checkout(PurePosixPath(page))) == target
    assert site.in_site(target) == page
