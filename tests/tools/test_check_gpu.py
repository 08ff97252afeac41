"""The check of a GPU machine, rehearsed on the CPU; and that each step finds what is wrong."""

import shutil
from typing import Any

import pytest
import torch

from tools import record_tables
from tools.check_gpu import extraction, kernels
from tools.check_gpu.__main__ import STEPS, main
from tools.check_gpu.steps import FAILED, PASSED, Step, Wrong, run_steps
from zoo.files.atomic import write_json

LIGHT = ("environment", "kernels", "convolution", "graph", "lstm", "memory")  # the others start processes or compilers


def test_light_steps_on_the_cpu(capsys: pytest.CaptureFixture) -> None:
    assert main(["--device", "cpu", "--only", *LIGHT]) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed[:-1]] == [[name, PASSED] for name in LIGHT]
    assert printed[-1] == "all passed"


@pytest.mark.slow
@pytest.mark.parametrize("name", [step.name for step in STEPS if step.name not in LIGHT])
def test_other_steps_on_the_cpu(name: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["--device", "cpu", "--only", name]) == 0, capsys.readouterr().out


@pytest.mark.gpu("a CUDA device that no other program uses, gcc and Python.h")
def test_on_a_gpu(capsys: pytest.CaptureFixture) -> None:
    assert main(["--only", *(step.name for step in STEPS if step.name != "benchmark")]) == 0, capsys.readouterr().out


def test_every_step_says_what_it_needs() -> None:
    assert all(step.needs for step in STEPS) and len({step.name for step in STEPS}) == len(STEPS)


def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = torch.nn.functional.scaled_dot_product_attention
    scaled = lambda q, k, v: attend(q, k, v) * (1.1 if q.dtype == torch.bfloat16 else 1)  # noqa: E731
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", scaled)
    with pytest.raises(Wrong, match="attention in torch.bfloat16 differs from the CPU's by"):
        kernels.kernels(torch.device("cpu"))


def test_features_that_depend_on_the_batch_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    make = kernels.make_encoder

    def drifting(*arguments: Any) -> Any:
        encode = make(*arguments)
        return lambda pixels: encode(pixels) * (1 + 1e-6 * len(pixels))

    monkeypatch.setattr(kernels, "make_encoder", drifting)
    with pytest.raises(Wrong, match="other bits in a batch of fewer images"):
        kernels.encoder(torch.device("cpu"))


def test_stores_that_differ_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(line: list[str]) -> str:
        seen.append(line)
        return ""

    monkeypatch.setattr(extraction, "run", run)
    monkeypatch.setattr(extraction, "make_jpegs", lambda folder, count: None)
    monkeypatch.setattr(extraction, "files_of", lambda store: {"bytes": store.name == "of2"})
    with pytest.raises(Wrong, match="2 processes give other bytes"):
        extraction.torchrun(torch.device("cpu"))
    assert [word for line in seen for word in line if "nproc" in word] == ["--nproc-per-node=1", "--nproc-per-node=2"]


def test_a_failed_step_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Any
) -> None:
    def broken(device: torch.device) -> dict[str, Any]:
        raise RuntimeError("an illegal memory access was encountered\nCompile with ...")

    steps = [Step("one", "nothing", broken), Step("two", "nothing", lambda device: {"found": 3})]
    outcomes = run_steps(steps, torch.device("cpu"))
    assert [each["outcome"] for each in outcomes] == [FAILED, PASSED]
    assert "RuntimeError: an illegal memory access was encountered" in capsys.readouterr().out
    where = {"device": "a GPU", "packages": {"torch": "2"}, "code": {"commit": "0123456789", "dirty": False}}
    shutil.copytree(record_tables.RECORDED, tmp_path, dirs_exist_ok=True)
    write_json(tmp_path / "gpu.json", dict(date="2026-01-02", environment=where, steps=outcomes))
    monkeypatch.setattr(record_tables, "RECORDED", tmp_path)
    marks = [
        f"<!-- {name}: rendered by tools/update_docs.py -->\n<!-- end of {name} -->" for name in ("gpu", "figures")
    ]
    rendered, figures = (record_tables.render_records(mark) for mark in marks)
    assert "1 of 2 steps passed on a GPU" in figures
    assert "| two" in rendered and "FAILED" in rendered and "Checked on 2026-01-02 on a GPU, torch 2" in rendered


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "torch finds no GPU; --device cpu rehearses"),
        (["--device", "cpu", "--record"], "only all steps on a GPU are recorded"),
    ],
)
def test_command_line(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and words in capsys.readouterr().err
