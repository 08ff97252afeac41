"""Write a finished row or a model of the zoo as a folder to share: weights (safetensors), card, configuration.

Every --model option accepts such a folder. Nothing is uploaded unless --push names a repository.

example:
  python bench.py export internlstm_flip_tta -o my_model
  python bench.py export internlstm_nano -o my_model --onnx
  python bench.py export runs/results/synthlam/internlstm_flip -o my_model --seed 3408 --push OWNER/NAME
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.commands import add_plugin_option, new_model_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("name", metavar="ROW_OR_MODEL", help="name or folder of a finished row, or a model")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="new or empty folder")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (default: runs)")
    parser.add_argument("--dataset", default="synthlam", metavar="NAME", help="dataset of the row (default: synthlam)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the row (default: its first)")
    parser.add_argument("--onnx", action="store_true", help="also write backbone.onnx and head.onnx (extra onnx)")
    parser.add_argument(
        "--push", metavar="OWNER/NAME", help="upload the folder to the hub; a new repository is private"
    )
    add_plugin_option(parser)


def run(args: argparse.Namespace) -> int:
    """Write the folder."""
    from registry import UserError, load_plugins

    folder: Path = args.output
    if args.onnx:
        from zoo.onnx_files import check_packages

        check_packages()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name another with -o")
    if args.push:
        from zoo.hub import check_repository

        check_repository(args.push)
    load_plugins(args.plugin)
    row = _row(args)
    with new_model_folder(folder):
        line = _write(args, row, folder)
    print(line)
    if args.push:
        from zoo.hub import push_model

        print(push_model(folder, args.push))
    return 0


def _row(args: argparse.Namespace) -> Path | None:
    """The folder of the row; None for a model.

    Raises:
        UserError: the name is neither a row's nor a model's.
    """
    from benchmarks.config.files import load_dataset, recipe_names
    from benchmarks.rows.find import find_row
    from registry import UserError, did_you_mean
    from zoo.models import model_names

    row = find_row(args.name, args.out, load_dataset(args.dataset)["type"])
    if row is None and args.seed is not None:
        raise UserError(f"--seed is for rows; there is no row {args.name} in {args.out}")
    if row is None and args.name not in model_names() and not Path(args.name).is_dir() and "/" not in args.name:
        recipes = recipe_names()
        hint = did_you_mean(args.name, [*recipes, *model_names()])
        if args.name in recipes:
            hint = f"; run it first: python bench.py --recipe {args.name}"
        raise UserError(
            f"'{args.name}' is neither a row in {args.out / 'results' / args.dataset} nor a model "
            f"({', '.join(model_names()) or 'none is shipped'}){hint}"
        )
    return row


def _write(args: argparse.Namespace, row: Path | None, folder: Path) -> str:
    """Write the folder; returns a line on its contents."""
    from benchmarks.pipeline.export import export_row
    from zoo.models import copy_model, open_model

    card = copy_model(args.name, folder) if row is None else export_row(row, folder, args.seed)
    facts = [f"{each.file} sha256 {each.sha256[:12]}, {each.licence}" for each in card.weights]
    if args.onnx:
        from zoo.onnx_files import write_onnx

        facts += [
            f"{file} within {error:.0e} of torch" for file, error in write_onnx(open_model(str(folder)), folder).items()
        ]
    return f"{folder}: {card.title}; {'; '.join(facts)}"
