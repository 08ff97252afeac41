"""Write a small package for a part of your own, or a recipe. It works as written; change it from there.

The folder contains the part, a test with the project's own checks, pyproject.toml with the entry point by which lamzoo
finds an installed plug-in, and README.md with the commands. A recipe needs no package: it is written twice, as a Python
file and as data in YAML. A dataset comes with a few made-up crops, so that its command runs at once.

example:
  python bench.py new-plugin nod_head --kind head
  python bench.py new-plugin my_recipe --kind recipe
  python bench.py new-plugin my_lab --kind dataset -o ~/my_lab
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent / "plugin_templates"

# Kind -> command line that uses a part of that kind, in a folder FOLDER.
USES = {
    "head": "--recipe internlstm_flip_tta --head my_part --plugin FOLDER/lamzoo_my_part.py",
    "backbone": "--recipe internlstm_flip_tta --backbone my_part --plugin FOLDER/lamzoo_my_part.py",
    "dataset": (
        "--recipe probe --backbone internvit_nano --dataset my_part --root FOLDER/example "
        "--plugin FOLDER/lamzoo_my_part.py"
    ),
    "prior": "--recipe gazepose --set priors=my_part --plugin FOLDER/lamzoo_my_part.py",
    "detector": (
        "predict VIDEO.mp4 --model gaze_nano_lstm --detector my_part -o OUT --plugin FOLDER/lamzoo_my_part.py"
    ),
    "recipe": "--recipe FOLDER/my_part.py",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("name", metavar="NAME", help="name of the part: lower case letters, digits, _")
    parser.add_argument("--kind", required=True, choices=tuple(USES), help="kind of the part")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="new or empty folder (default: lamzoo_NAME)")


def run(args: argparse.Namespace) -> int:
    """Write the package."""
    from registry import UserError, load_plugins
    from zoo.files.atomic import replacing, write_text

    name: str = args.name
    if not re.fullmatch(r"[a-z][a-z0-9_]{,59}", name):
        raise UserError(
            f"'{name}' cannot name a part; use at most 60 lower case letters, digits and _, starting with a letter"
        )
    load_plugins([])
    if where := _taken(args.kind, name):
        raise UserError(f"a {args.kind} called '{name}' exists ({where}); choose another name")
    folder: Path = args.output or Path(f"lamzoo_{name}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; delete it, or name another with -o")
    sources = _sources(args.kind, name)
    for file, template in sources.items():
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        write_text(folder / file, _filled(text, args.kind, name, folder.resolve().name))
    for file, content in _example() if args.kind == "dataset" else ():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder / file) as temporary:
            temporary.write_bytes(content)
    print(f"{folder}: {', '.join(sources)}; now:")
    print(f"  python -m pytest {folder}")
    print(f"  python bench.py {_filled(USES[args.kind], args.kind, name, str(folder))}")
    return 0


def _taken(kind: str, name: str) -> str | None:
    """Where a part of that name is registered; None if it is free."""
    from benchmarks.config.files import RECIPES, recipe_names
    from registry import BACKBONES, DATASETS, DETECTORS, HEADS, PRIORS

    if kind == "recipe":
        return f"{RECIPES / name}.py" if name in recipe_names() else None
    registries = {"backbone": BACKBONES, "head": HEADS, "dataset": DATASETS, "prior": PRIORS, "detector": DETECTORS}
    return registries[kind].origin(name) if name in registries[kind] else None


def _sources(kind: str, name: str) -> dict[str, str]:
    """File of the package -> template."""
    if kind == "recipe":
        return {
            f"{name}.py": "recipe/part.py",
            f"{name}.yaml": "recipe/part.yaml",
            f"test_{name}.py": "recipe/test.txt",
            "README.md": "recipe/README.md",
        }
    return {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"lamzoo_{name}.py": f"{kind}/part.py",
        f"test_lamzoo_{name}.py": f"{kind}/test.txt",
    }


def _filled(text: str, kind: str, name: str, folder: str) -> str:
    """Put names in the place of a template's placeholders."""
    words = {
        "USE": USES[kind],
        "KIND": kind,
        "FOLDER": folder,
        "my_part": name,
        "my-part": name.replace("_", "-"),
        "MyPart": "".join(part.capitalize() for part in name.split("_")),
    }
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text


def _example() -> Iterator[tuple[str, bytes]]:
    """Files of a made-up data set: two clips per split, whose crops are bright where they are labelled looking."""
    import io

    from PIL import Image

    for split, clips in (("train", ("morning", "noon")), ("val", ("evening", "night"))):
        lines = ["clip,track,frame,label,image"]
        for number, clip in enumerate(clips):
            for label in (0, 1):
                stream = io.BytesIO()
                Image.new("RGB", (40, 48), (90 + 100 * label, 80 + 90 * label, 70 + 20 * number)).save(stream, "PNG")
                yield f"example/crops/{clip}_{label}.png", stream.getvalue()
            for frame in range(1, 121):
                label = frame // 20 % 2
                lines.append(f"{clip},0,{frame},{label},crops/{clip}_{label}.png")
        yield f"example/{split}.csv", "\n".join([*lines, ""]).encode()
