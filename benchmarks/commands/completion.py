"""Shell completion of `python bench.py ...` with argcomplete: commands, options, names.

Names of parts are found by searching the source, because importing it would load torch at every key press. Parts of
plug-ins are therefore not completed.
"""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import argcomplete
from argcomplete.completers import DirectoriesCompleter, FilesCompleter

HOME = Path(__file__).resolve().parents[2]
PARTS = {  # kind -> folder of the modules that register it
    "backbone": "backbones",
    "head": "heads",
    "prior": "benchmarks/priors",
    "detector": "benchmarks/video/detectors",
    "dataset": "benchmarks/data",
}


def complete(commands: Mapping[str, str], line: str, point: int) -> None:
    """Print the completions at the cursor in argcomplete's format, and exit.

    Args:
        commands: name -> description.
        line: the command line, from `python bench.py` on.
        point: position of the cursor.
    """
    words = argcomplete.split_line(line, point)[3]
    after = [place for place, word in enumerate(words) if Path(word).name == "bench.py"]
    given = words[after[0] + 1 :] if after else words[1:]
    parser = argparse.ArgumentParser(prog="bench.py")
    if not given or not given[0].startswith("-"):
        names = parser.add_subparsers()
        for name, what in commands.items():
            sub = names.add_parser(name, help=what)
            if given[:1] == [name]:
                _declare(sub, name)
    elif given[0] in ("--list", "--show", "--table"):
        name = given[0].removeprefix("--")
        _declare(parser, name)
        parser.add_argument(given[0], action="store_true", help=argparse.SUPPRESS)
    else:
        _declare(parser, "run")
    if not given:
        for name in ("list", "show", "table"):
            parser.add_argument(f"--{name}", action="store_true", help=commands[name])
        _declare(parser, "run")
    argcomplete.autocomplete(parser, always_complete_options="long", default_completer=FilesCompleter())


def _declare(parser: argparse.ArgumentParser, command: str) -> None:
    importlib.import_module(f"benchmarks.commands.{command}").add_arguments(parser)
    for action in parser._actions:
        names = _NAMES.get((command, action.dest)) or _NAMES.get(action.dest)
        if names is not None:
            action.completer = names  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.completer = DirectoriesCompleter()  # type: ignore[attr-defined]
        elif action.type in (int, float):
            action.completer = _nothing  # type: ignore[attr-defined]


def _nothing(**_: Any) -> tuple[str, ...]:
    """Numbers have no completions."""
    return ()


def _files(folder: str, ending: str) -> list[str]:
    return sorted(path.stem for path in (HOME / folder).glob(f"[!_]*{ending}"))


def complete_recipes(prefix: str = "", **_: Any) -> list[str]:
    """All recipes, after those already in the comma-separated list."""
    done, comma, _rest = prefix.rpartition(",")
    names = _files("benchmarks/recipes", ".py")
    return [f"{done},{name}" for name in names] if comma else ["all", *names]


def complete_registered(*kinds: str) -> Callable[..., list[str]]:
    """Make a completer for registered names: ``register_module(name="lstm")`` in the source."""

    def names(**_: Any) -> list[str]:
        found: set[str] = set()
        for kind in kinds:
            for path in (HOME / PARTS[kind]).glob("*.py"):
                found.update(re.findall(r'register_module\(name="([\w.]+)"', path.read_text(encoding="utf-8")))
        return sorted(found)

    return names


def _datasets(**_: Any) -> list[str]:
    return _files("benchmarks/datasets", ".py")


def complete_models(**_: Any) -> Iterable[str]:
    """Shipped models, and folders written by `export`."""
    configs = (HOME / "zoo" / "weights").glob("*/config.json")
    yield from sorted(path.parent.name for path in configs if '"views"' in path.read_text(encoding="utf-8"))
    yield from sorted(str(path.parent) for path in Path().glob("*/card.json"))


def _rows(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Finished rows."""
    out, dataset = getattr(parsed_args, "out", None), getattr(parsed_args, "dataset", None)
    return [path.parent.name for path in Path(out or "runs").glob(f"results/{dataset or '*'}/*/result.json")]


def _rows_and_models(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    return [*_rows(parsed_args), *complete_models()]


def _everything(**_: Any) -> list[str]:
    return [*complete_recipes()[1:], *complete_registered(*PARTS)(), *_files("zoo/cards", ".json")]


# Destination of an option, or (command, destination) -> completer.
_NAMES: dict[str | tuple[str, str], Callable[..., Iterable[str]]] = {
    "recipe": complete_recipes,
    "backbone": complete_registered("backbone"),
    "head": complete_registered("head"),
    "detector": complete_registered("detector"),
    "dataset": _datasets,
    "model": complete_models,
    "runs": _rows,
    ("compare", "a"): _rows,
    ("compare", "b"): _rows,
    ("show", "name"): _everything,
    ("export", "name"): _rows_and_models,
}
