"""Write a small package for a part of your own. It works as written; change it from there.

The folder contains the part, a test with the project's own checks, pyproject.toml with the entry point by which lamzoo
finds an installed plug-in, and README.md with the commands.

example:
  python bench.py new-plugin nod_head --kind head
  python bench.py new-plugin my_lab --kind dataset -o ~/my_lab
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent / "plugin_templates"

# Kind -> command line that uses a part of that kind.
USES = {
    "head": "--recipe internlstm_flip_tta --head my_part",
    "backbone": "--recipe internlstm_flip_tta --backbone my_part",
    "dataset": "--recipe internlstm_flip_tta --dataset my_part --root DIR",
    "prior": "--recipe gazepose --set priors=my_part",
    "detector": "predict VIDEO.mp4 --model gaze_nano_lstm --detector my_part -o OUT",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("name", metavar="NAME", help="name of the part: lower case letters, digits, _")
    parser.add_argument("--kind", required=True, choices=tuple(USES), help="kind of the part")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="new or empty folder (default: lamzoo_NAME)")


def run(args: argparse.Namespace) -> int:
    """Write the package."""
    from registry import BACKBONES, DATASETS, DETECTORS, HEADS, PRIORS, UserError, load_plugins
    from zoo.files.atomic import write_text

    name: str = args.name
    if not re.fullmatch(r"[a-z][a-z0-9_]{,59}", name):
        raise UserError(
            f"'{name}' cannot name a part; use at most 60 lower case letters, digits and _, starting with a letter"
        )
    load_plugins([])
    registries = {"backbone": BACKBONES, "head": HEADS, "dataset": DATASETS, "prior": PRIORS, "detector": DETECTORS}
    if name in registries[args.kind]:
        where = registries[args.kind].origin(name)
        raise UserError(f"a {args.kind} called '{name}' exists ({where}); choose another name")
    folder: Path = args.output or Path(f"lamzoo_{name}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; delete it, or name another with -o")
    sources = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"lamzoo_{name}.py": f"{args.kind}/part.py",
        f"test_lamzoo_{name}.py": f"{args.kind}/test.txt",
    }
    words = {
        "USE": USES[args.kind],
        "KIND": args.kind,
        "FOLDER": str(folder.resolve()),
        "my_part": name,
        "my-part": name.replace("_", "-"),
        "MyPart": "".join(part.capitalize() for part in name.split("_")),
    }
    for file, template in sources.items():
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        for placeholder, word in words.items():
            text = text.replace(placeholder, word)
        write_text(folder / file, text)
    print(f"{folder}: {', '.join(sources)}; now: python -m pytest {folder}")
    return 0
