"""The fuzz harness detects every kind of fault."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import strategies as st

from registry import UserError
from tests.fuzz.harness import Kind, command, run, run_case


def _fault(tmp_path: Path, feed, **more) -> tuple[str, str]:
    kind = Kind("x", st.just(0), lambda folder, case: (folder / "a").write_text("a"), feed, **more)
    verdict, message, _, _ = run_case(kind, 0, tmp_path / "case")
    return verdict, message


def _refuse(text: str):
    def feed(folder: Path, case: object) -> None:
        raise UserError(text.format(folder=folder))

    return feed


def _allocate(folder: Path, case: object) -> None:
    bytearray(600_000_000)[::4096] = b"x" * len(range(0, 600_000_000, 4096))


def test_acceptance_and_refusal(tmp_path: Path) -> None:
    assert _fault(tmp_path, lambda folder, case: (folder / "a").read_text())[0] == "accepted"
    assert _fault(tmp_path, lambda folder, case: (folder / "b" / "c").mkdir(parents=True))[0] == "accepted"
    assert _fault(tmp_path, _refuse("{folder}/a: line 3: what it is")) [0] == "refused"  # fmt: skip
    assert _fault(tmp_path, _refuse("what it is"), names_file=False)[0] == "refused"


@pytest.mark.parametrize(
    ("feed", "verdict"),
    [
        (lambda folder, case: {}["a"], "traceback"),
        (lambda folder, case: time.sleep(3), "hang"),
        (_allocate, "memory"),
        (lambda folder, case: bytearray(10**13), "memory"),
        (_refuse("what it is"), "message"),
        (lambda folder, case: print("\x1b[2J"), "message"),
        (lambda folder, case: (folder / ".." / "secret.json").read_text(), "escape"),
        (lambda folder, case: list((folder.parent / "secret").iterdir()), "escape"),
        (lambda folder, case: (folder.parents[1] / "new").write_text(""), "escape"),
        (lambda folder, case: (folder / "../../secret/1.json").resolve().unlink(), "escape"),
    ],
    ids=["traceback", "hang", "memory", "huge", "nameless", "control", "read", "listed", "written", "removed"],
)
def test_faults_are_detected(tmp_path: Path, feed, verdict: str) -> None:
    assert _fault(tmp_path, feed, seconds=0.2 if verdict == "hang" else 20)[0] == verdict


def test_the_seed_determines_the_cases_and_faults_show_them(tmp_path: Path) -> None:
    def feed(folder: Path, case: int) -> None:
        seen.append(case)
        assert case % 3

    def kind() -> Kind:
        return Kind("x", st.integers(0, 999), lambda folder, case: None, feed)

    seen: list[int] = []
    report = run(kind(), 12, 3, tmp_path)
    first, seen = seen, []
    assert run(kind(), 12, 3, tmp_path).as_dict()["cases"] == 12 == report.cases and seen == first
    wrong = [case for case in first if case % 3 == 0]
    assert report.verdicts["traceback"] == len(wrong)
    assert [int(re.search(r"case: (\d+)$", fault)[1]) for fault in report.faults] == wrong


def test_the_message_of_a_command_is_raised(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UserError, match=r"^bench\.py score: .*none\.csv: no such file|No such file"):
        command("score", "--groundtruth", tmp_path / "none.csv", "--predictions", tmp_path / "none.csv")
    assert command("list") == 0
