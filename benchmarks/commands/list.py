"""List recipes, backbones, heads, datasets, priors, detectors, models and weights, including those of plug-ins.

Models are what `predict --model` takes, with what they were measured on. Weights are those of backbones alone.

example:
  python bench.py --list
  python bench.py list heads
  python bench.py list recipes 'lite0*'
  python bench.py list --plugin my_head.py --json
"""

from __future__ import annotations

import argparse

from benchmarks.commands import add_plugin_option

KINDS = ("recipes", "backbones", "heads", "datasets", "priors", "detectors", "models", "weights")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("kind", nargs="?", choices=KINDS, metavar="KIND", help=f"{', '.join(KINDS)} (default: all)")
    parser.add_argument("pattern", nargs="?", metavar="PATTERN", help="part of a name, or a pattern with * and ?")
    parser.add_argument("--json", action="store_true", help="print kind -> name -> description as JSON")
    add_plugin_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print one table per kind."""
    import sys

    from benchmarks.system.terminal import columns
    from registry import UserError, load_plugins

    load_plugins(args.plugin)
    kinds = {kind: _matching(what, args.pattern) for kind, what in _everything().items() if args.kind in (None, kind)}
    if not any(kinds.values()):
        raise UserError(f"no {args.kind} match '{args.pattern}'; see python bench.py list {args.kind}")
    if args.json:
        import json

        print(json.dumps(kinds, indent=2, ensure_ascii=False))
        return 0
    width = columns(sys.stdout)
    print("\n\n".join(_table(kind, what, width) for kind, what in kinds.items()))
    return 0


def _everything() -> dict[str, dict[str, str]]:
    """Kind -> name -> description."""
    from benchmarks.api.models import list_models
    from benchmarks.config.files import recipe_names, recipe_summary
    from registry import BACKBONES, DATASETS, DETECTORS, HEADS, PRIORS
    from zoo.cards import load_cards

    return {
        "recipes": {name: recipe_summary(name) for name in recipe_names()},
        "backbones": {name: _summary(BACKBONES.get(name)) for name in BACKBONES},
        "heads": {name: _summary(HEADS.get(name)) for name in HEADS},
        "datasets": {name: _summary(DATASETS.get(name)) for name in DATASETS},
        "priors": {name: _summary(PRIORS.get(name)) for name in PRIORS},
        "detectors": {name: _summary(DETECTORS.get(name)) for name in DETECTORS},
        "models": {name: f"{what} ({measured})" for name, what, measured in list_models().to_numpy().tolist()},
        "weights": {name: card.title for name, card in load_cards().items() if card.head is None},
    }


def _matching(what: dict[str, str], pattern: str | None) -> dict[str, str]:
    from fnmatch import fnmatchcase

    if pattern is None:
        return what
    wanted = pattern if set("*?[") & set(pattern) else f"*{pattern}*"
    return {name: words for name, words in what.items() if fnmatchcase(name, wanted)}


def _table(kind: str, what: dict[str, str], width: int | None) -> str:
    """Names and descriptions; the latter break into lines on a terminal of this width."""
    from tabulate import tabulate

    rest = None if width is None else max(20, width - 4 - max(map(len, (kind, *what))))  # tabulate pads headings by two
    lines = tabulate(
        list(what.items()), [kind, ""], tablefmt="plain", disable_numparse=True, maxcolwidths=[None, rest]
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in lines.split("\n"))


def _summary(part: object) -> str:
    """First line of the docstring."""
    return (part.__doc__ or "").strip().partition("\n")[0]
