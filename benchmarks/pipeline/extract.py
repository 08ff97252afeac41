"""Fill the feature stores of some rows before `run` needs them, by any number of processes or machines."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.config.ensemble import RowConfig
from benchmarks.features.extract import DEFAULT_OPTIONS, Extraction, ExtractOptions
from benchmarks.pipeline.row import rows_of
from benchmarks.pipeline.run import by_backbone, check_needs
from benchmarks.pipeline.session import Session
from benchmarks.pipeline.sources import encode_missing, plan_features, say_encoded
from benchmarks.system.progress import say
from zoo.files.atomic import check_writable


def extract_features(
    recipes: Sequence[RowConfig],
    session: Session,
    options: ExtractOptions = DEFAULT_OPTIONS,
    engine: str = "local",
) -> Extraction:
    """Encode the frames in the windows of some rows into the stores that `run` reads.

    Args:
        recipes: resolved rows of one dataset.
        session: dataset and options.
        options: how to extract; device, `skip_damaged` and `plugins` come from the session.
        engine: `local`, or `ray` for the machines of a cluster.

    Returns:
        Images computed and found, over all backbones.

    Raises:
        UserError: see `run`.
    """
    rows, _, references = rows_of(recipes, session)
    check_needs(rows)
    check_writable(session.out)
    for row in rows:
        if row.recipe.on_pixels:
            say(f"{row.name}: its backbone trains, so there are no features to extract")
    for reference in references:
        say(f"{reference.name}: it has no backbone, so there are no features to extract")
    total = Extraction()
    for group in by_backbone([row for row in rows if not row.recipe.on_pixels]):
        plan = plan_features(group, session.device if engine == "local" else "cpu")
        done = encode_missing(plan, session, options, engine)
        if options.share[0] == 0:
            say_encoded(plan, done, session.dataset.root)
        total.add(done)
    return total
