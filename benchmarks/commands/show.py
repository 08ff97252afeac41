"""Show a recipe, part or model in full: description, arguments, values, sources of its figures.

For a finished row, show its diagnosis: calibration, and mAP by groups of frames.

example:
  python bench.py --show internlstm_flip_tta
  python bench.py show lstm
  python bench.py show runs/results/synthlam/internlstm_flip_tta
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
from pathlib import Path

from benchmarks.commands import add_plugin_option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "name",
        metavar="NAME",
        help="recipe or its file, backbone, head, dataset, prior, detector or model (see --list), or a row's folder",
    )
    parser.add_argument(
        "--dataset", default="synthlam", metavar="NAME", help="scale to show a recipe at (default: synthlam)"
    )
    add_plugin_option(parser)


def run(args: argparse.Namespace) -> int:
    """Print everything with that name."""
    from benchmarks.system.terminal import tell

    if Path(args.name, "result.json").is_file() or args.name.endswith(".json"):
        from benchmarks.rows.schema import read_result
        from benchmarks.table.diagnosis import diagnosis_text

        path = Path(args.name)
        tell(diagnosis_text(read_result(path / "result.json" if path.is_dir() else path)))
        return 0
    from benchmarks.config.ensemble import Ensemble, resolve_row
    from benchmarks.config.files import RECIPES, recipe_names
    from benchmarks.config.reading import is_config_file
    from benchmarks.config.reference import Reference
    from benchmarks.config.settings import settable
    from registry import BACKBONES, DATASETS, DETECTORS, HEADS, PRIORS, UserError, did_you_mean, load_plugins
    from zoo.cards import load_cards

    load_plugins(args.plugin)
    cards = load_cards()
    name, parts = args.name, []
    if name in recipe_names() or is_config_file(name):
        row = resolve_row(name, args.dataset)
        path = RECIPES / f"{name}.py" if name in recipe_names() else Path(name)
        source = path.read_text(encoding="utf-8")
        text = inspect.cleandoc(_docstring(source)) if path.suffix == ".py" else source.strip()
        config = json.dumps(row.as_dict(), indent=2, ensure_ascii=False)
        keys = f"--set changes {', '.join(settable())}, and any argument of backbone and head"
        if isinstance(row, Ensemble):
            keys = "--set changes members, smoothing, smoothing.filter and smoothing.window; other keys the members"
        if isinstance(row, Reference):
            keys = "--set changes windows and priors"
        parts.append(f"recipe {name}\n\n{text}\n\nas it runs on {args.dataset}:\n{config}\n\n{keys}")
    kinds = dict(backbone=BACKBONES, head=HEADS, dataset=DATASETS, prior=PRIORS, detector=DETECTORS)
    for kind, registry in kinds.items():
        if name in registry:
            part = registry.get(name)
            arguments = "\n".join(f"  {parameter}" for parameter in inspect.signature(part).parameters.values())
            where = _relative(registry.origin(name))
            parts.append(f"{kind} {name} ({where})\n\n{inspect.getdoc(part)}\n\narguments:\n{arguments}")
    if name in cards:
        parts.append(f"model {name}\n\n{json.dumps(dataclasses.asdict(cards[name]), indent=2, ensure_ascii=False)}")
    if not parts:
        known = [*recipe_names(), *BACKBONES, *HEADS, *DATASETS, *PRIORS, *DETECTORS, *cards]
        raise UserError(f"unknown name '{name}'{did_you_mean(name, known)}; see python bench.py --list")
    tell("\n\n\n".join(parts))
    return 0


def _docstring(source: str) -> str:
    import ast

    return ast.get_docstring(ast.parse(source)) or ""


def _relative(origin: str) -> str:
    from benchmarks.rows.provenance import HOME

    return origin.removeprefix(f"{HOME}/")
