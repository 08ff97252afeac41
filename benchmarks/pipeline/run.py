"""The straight line from frames to rows of the table. The steps are those of docs/design.md."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.config.ensemble import RowConfig
from benchmarks.config.recipe import SEEDS
from benchmarks.features.windows import check_takes_features
from benchmarks.pipeline.ensemble import score_ensemble
from benchmarks.pipeline.recipe import score_recipe
from benchmarks.pipeline.reference import score_reference
from benchmarks.pipeline.row import RecipeRow, ReferenceRow, Row, rows_of
from benchmarks.pipeline.session import Session
from benchmarks.pipeline.sources import check_recipe_checkpoint, head_config, load_source, touched_rows, views_of
from benchmarks.pixels.source import check_init
from benchmarks.priors.base import lacking
from benchmarks.rows.schema import Result
from benchmarks.system import processes
from benchmarks.system.progress import plural, say
from benchmarks.system.terminal import tell
from benchmarks.training.trackers import log_figures
from registry import BACKBONES, HEADS, UserError
from zoo.files.atomic import check_writable


def run(recipes: Sequence[RowConfig], session: Session) -> list[Result]:
    """Run each recipe to its record; the members of an ensemble first, each to its own record.

    Args:
        recipes: resolved recipes, ensembles and references of one dataset.
        session: dataset and options.

    Returns:
        One record per recipe, in order. Under torchrun only the first process returns what was computed.

    Raises:
        UserError: anything that the user can correct.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from benchmarks.config.resolve import resolve
        >>> from registry import DATASETS
        >>> with TemporaryDirectory() as out:
        ...     session = Session(DATASETS.get("synthlam")(None), Path(out))
        ...     (result,) = run([resolve("probe", limit=4)], session)
        >>> result["name"], result["seeds"], result["splits"]["test"]["windows"]
        ('probe+limit=4', [3407], 4)
    """
    started = time.perf_counter()
    # -- frames, windows: read when a row first needs them
    rows, ensembles, references = rows_of(recipes, session)
    check_needs(rows, references)
    check_writable(session.out)
    if rows:
        session.check_splits(rows[0].recipe.dataset)
    say_many_absent(session)
    todo = unfinished([*rows, *ensembles, *references])
    if todo:
        say_videos(session)
        processes.barrier()  # nothing may be written while another process still looks rows up

    # -- features: once per backbone; pixels where the backbone trains
    for group in by_backbone([row for row in rows if row in todo]):
        source = load_source(group)
        for row in group:
            with row.locked():
                if row.find() is not None:  # another command finished it meanwhile
                    continue
                # -- head, scores, fused
                scores = score_recipe(row, source)
                # -- figures, record
                if scores is not None:
                    log_record(row, row.keep(scores))

    # -- ensembles: fused from the records of their members
    for ensemble in ensembles if session.rank == 0 else ():
        if ensemble in todo:
            with ensemble.locked():
                ensemble.keep(score_ensemble(ensemble))

    # -- floors and ceilings: scored from angles
    for reference in references if session.rank == 0 else ():
        if reference in todo:
            with reference.locked():
                reference.keep(score_reference(reference))
    say_absent(session, todo)
    say(f"finished in {time.perf_counter() - started:.0f} s")
    found = {row.name: row.find() for row in (*rows, *ensembles, *references)}
    return [result for recipe in recipes if (result := found[recipe.name]) is not None]


def show_work(recipes: Sequence[RowConfig], session: Session) -> None:
    """Print what `run` would do."""
    rows, ensembles, references = rows_of(recipes, session)
    check_needs(rows, references)
    if rows:
        session.check_splits(rows[0].recipe.dataset)
    todo = unfinished([*rows, *ensembles, *references])
    build_parts([row for row in rows if row in todo])
    for row in rows:
        if row in todo:
            recipe, sizes = row.recipe, {split: len(each.centres) for split, each in row.key_frames.items()}
            frames = sum(len(touched_rows(row.touched(split))) * len(views_of(recipe, split)) for split in sizes)
            tell(
                f"{row.name}: {recipe.backbone['type']} on {plural(frames, 'frame')} (all views), "
                f"{recipe.head['type']} for {plural(recipe.training.epochs, 'epoch')}, "
                f"{plural(row.seed_count, 'seed')}; windows: "
                + ", ".join(f"{size:,} {split}" for split, size in sizes.items())
            )
    for ensemble in ensembles:
        if ensemble in todo:
            tell(f"{ensemble.name}: weights for {', '.join(member.name for member in ensemble.members)}")
    for reference in references:
        if reference in todo:
            sizes = {split: len(each.centres) for split, each in reference.key_frames.items() if split != "train"}
            tell(
                f"{reference.name}: scores without training; key frames: "
                + ", ".join(f"{size:,} {split}" for split, size in sizes.items())
            )


def build_parts(rows: Sequence[RecipeRow]) -> None:
    """Build the backbones, heads and priors of rows and drop them: the errors of a run, before it starts.

    Raises:
        UserError: a part cannot be built, such as a backbone whose weights are missing.
    """
    for group in by_backbone(rows):
        check_init(group[0].recipe)
        backbone = BACKBONES.build(group[0].recipe.backbone)
        for row in group:
            recipe = row.recipe
            HEADS.build(head_config(recipe, backbone.feature_dim))
            check_recipe_checkpoint(recipe, backbone)
            if recipe.priors is not None:
                row.session.prior(recipe.priors, recipe.dataset)


def unfinished(rows: Sequence[Row]) -> list[Row]:
    """The rows that must be computed; prints which are reused."""
    todo = []
    for row in rows:
        result = row.find()
        if result is None:
            todo.append(row)
        else:
            say(f"{row.name}: done before, {plural(len(result['seeds']), 'seed')} reused from {row.folder}")
    return todo


def by_backbone(rows: Sequence[RecipeRow]) -> list[list[RecipeRow]]:
    """Group rows that share a source: the same backbone and, on pixels, the same start, dropout and priors."""
    groups: dict[str, list[RecipeRow]] = {}
    for row in rows:
        recipe = row.recipe
        shared: list[Any] = [recipe.backbone]
        if recipe.on_pixels:
            shared += [recipe.init, recipe.temporal_dropout, recipe.published_faults, recipe.priors, recipe.checkpoint]
        groups.setdefault(json.dumps(shared, sort_keys=True), []).append(row)
    return list(groups.values())


def check_needs(rows: Sequence[RecipeRow], references: Sequence[ReferenceRow] = ()) -> None:
    """Check that each row gets the inputs that it needs, and its seeds are valid, before any work is done.

    Raises:
        UserError: a head needs more than features from a frozen backbone, or a prior that is not named; the weights to
            start from are not named; the last seed is too large; or the angles of a reference row are unknown.
    """
    for reference in references:
        reference.check_source()
    for row in rows:
        row.check_strides()
        last = row.recipe.training.seed + row.seed_count - 1
        if last >= SEEDS:
            raise UserError(f"{row.name}: the last seed would be {last}; seeds must be below {SEEDS}")
        if row.recipe.checkpoint is not None:
            check_single_file(row)
        head: Any = HEADS.get(row.recipe.head["type"])
        if not row.recipe.on_pixels:
            check_takes_features(row.recipe.head["type"], head)
        elif head.needs_priors and row.recipe.priors is None:
            raise lacking(row.name, head.needs_priors)
        elif row.recipe.init == "gaze360" and not row.recipe.backbone.get("weights"):
            raise UserError(
                f"recipe {row.name} starts from Gaze360's ResNet-18 and LSTM; add --weights FILE, which import "
                "CHECKPOINT --as gaze360 -o FILE writes, or --set init=imagenet, or --set init=random"
            )


def check_single_file(row: RecipeRow) -> None:
    """Check that a checkpoint is a file, and that one seed is asked for.

    Raises:
        UserError: it is not.
    """
    path = Path(row.recipe.checkpoint or "")
    if not path.is_file():
        raise UserError(f"--checkpoint {path} is not a file; `bench.py import` writes one from a published checkpoint")
    if row.session.seeds != 1:
        raise UserError(f"--checkpoint {path} is one set of weights; it has no {row.seed_count} seeds")


def log_record(row: RecipeRow, result: Result) -> None:
    """Log a row's final figures to the trackers that its recipe turns on."""
    figures: dict[str, float] = {}
    for split, of_split in result["splits"].items():
        for name, metric in of_split["metrics"].items():
            of_seeds = zip(result["seeds"], metric["per_seed"], strict=True)
            named = {"": metric["mean"], **{f" seed {seed}": value for seed, value in of_seeds}}
            figures |= {f"{split}/{name}{which}": value for which, value in named.items() if value is not None}
    log_figures(row.recipe.training, row.folder, row.name, figures)


def say_videos(session: Session) -> None:
    """Print where several clips are of one video, because intervals then resample videos."""
    for split, videos in session.videos.items():
        if videos:
            count = plural(len({*videos.values()}), "video")
            say(f"{split}: {plural(len(videos), 'clip')} of {count}; intervals resample videos")


def say_many_absent(session: Session) -> None:
    """Print the share of frames without a crop where it is so large that figures mean something else."""
    for split, info in session.split_info.items():
        if "absent" in info:
            say(
                f"{split}: {info['absent']:.0%} of {plural(info['rows'], 'frame')} have no crop; the figures are of "
                "what is left; `bench.py prepare` cuts crops and reports what is missing"
            )


def say_absent(session: Session, todo: Sequence[Row]) -> None:
    """Print how many frames have no crop, if a recipe's row was computed."""
    for split, info in session.split_info.items() if any(isinstance(row, RecipeRow) for row in todo) else ():
        absent = info["rows"] - info["crops"]
        if absent:
            say(f"{split}: {absent:,} of {plural(info['rows'], 'frame')} have no crop and count as absent")
