"""Every kind of bad input: a few cases by default, a thousand with `-m slow`."""

from pathlib import Path

import pytest

from tests.fuzz import kinds
from tests.fuzz.harness import Kind, run

FEW, MANY = 8, 1000


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMZOO_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", kinds().values(), ids=kinds())
def test_a_few_cases_are_accepted_or_refused_in_one_line(kind: Kind, tmp_path: Path) -> None:
    report = run(kind, FEW, 1, tmp_path)
    assert report.cases
    assert not report.faults, "\n".join(report.faults[:3])


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds().values(), ids=kinds())
def test_many_cases_are_accepted_or_refused_in_one_line(kind: Kind, tmp_path: Path) -> None:
    report = run(kind, MANY, 2, tmp_path)
    assert not report.faults, "\n".join(report.faults[:3])
