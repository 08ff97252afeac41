"""List recipes, backbones, heads, datasets, priors, detectors and models, including those of plug-ins.

example:
  python bench.py --list
  python bench.py list --plugin my_head.py
"""

from __future__ import annotations

import argparse

from benchmarks.commands import add_plugin_option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_plugin_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print one table per kind."""
    from tabulate import tabulate

    from benchmarks.config.files import recipe_names, recipe_summary
    from registry import BACKBONES, DATASETS, DETECTORS, HEADS, PRIORS, load_plugins
    from zoo.cards import load_cards

    load_plugins(args.plugin)
    kinds = {
        "recipes": {name: recipe_summary(name) for name in recipe_names()},
        "backbones": {name: _summary(BACKBONES.get(name)) for name in BACKBONES},
        "heads": {name: _summary(HEADS.get(name)) for name in HEADS},
        "datasets": {name: _summary(DATASETS.get(name)) for name in DATASETS},
        "priors": {name: _summary(PRIORS.get(name)) for name in PRIORS},
        "detectors": {name: _summary(DETECTORS.get(name)) for name in DETECTORS},
        "models": {name: card.title for name, card in load_cards().items()},
    }
    print(
        "\n\n".join(
            tabulate(list(what.items()), [kind, ""], tablefmt="plain", disable_numparse=True)
            for kind, what in kinds.items()
        )
    )
    return 0


def _summary(part: object) -> str:
    """First line of the docstring."""
    return (part.__doc__ or "").strip().partition("\n")[0]
