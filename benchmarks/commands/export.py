"""A row that was run, or a model of the zoo -> a folder that travels: weights (safetensors), card, configuration.

Whatever asks for a --model takes such a folder. Nothing leaves this machine unless --push names a repository.

example:
  python bench.py export internlstm_flip_tta -o my_model
  python bench.py export internlstm_nano -o my_model --onnx
  python bench.py export runs/results/synthlam/internlstm_flip -o my_model --seed 3408 --push OWNER/NAME
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.commands import add_plugin_option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("name", metavar="ROW_OR_MODEL", help="a row of --out, a row's folder, or a model")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="new, or empty")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="of the runs (default runs)")
    parser.add_argument("--dataset", default="synthlam", metavar="NAME", help="of the row (default synthlam)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the row; its first by default")
    parser.add_argument("--onnx", action="store_true", help="backbone.onnx and head.onnx too; extra onnx")
    parser.add_argument(
        "--push", metavar="OWNER/NAME", help="upload the folder to the hub; a new repository is private"
    )
    add_plugin_option(parser)


def run(args: argparse.Namespace) -> int:
    """Write the folder and say what is in it."""
    from benchmarks.export import export_row
    from benchmarks.predictions import find_row
    from registry import UserError, load_plugins
    from zoo.files import check_writable
    from zoo.models import copy_model, model_names, open_model, push_model

    folder: Path = args.output
    if args.onnx:
        from zoo.onnx_files import check_packages, write_onnx

        check_packages()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; delete it, or give another one with -o")
    load_plugins(args.plugin)
    row = find_row(args.name, args.out, args.dataset)
    if row is None and args.seed is not None:
        raise UserError(f"--seed chooses among a row's; there is no row {args.name} in {args.out}")
    check_writable(folder)
    if row is not None:
        card = export_row(row, folder, args.seed)
    elif args.name in model_names() or Path(args.name).is_dir() or "/" in args.name:
        card = copy_model(args.name, folder)
    else:
        raise UserError(
            f"'{args.name}' is neither a row in {args.out / 'results' / args.dataset} nor a model "
            f"({', '.join(model_names()) or 'none is shipped'}); run it first: python bench.py --recipe {args.name}"
        )
    facts = [f"{each.file} sha256 {each.sha256[:12]}, {each.licence}" for each in card.weights]
    if args.onnx:
        facts += [
            f"{file} within {error:.0e} of torch" for file, error in write_onnx(open_model(str(folder)), folder).items()
        ]
    print(f"{folder}: {card.title}; {'; '.join(facts)}")
    if args.push:
        print(push_model(folder, args.push))
    return 0
