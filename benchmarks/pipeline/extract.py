"""Fill the feature stores of some rows before `run` needs them, by any number of processes or machines."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.config.ensemble import Ensemble
from benchmarks.config.recipe import Recipe
from benchmarks.features.extract import Extraction
from benchmarks.pipeline.row import rows_of
from benchmarks.pipeline.run import by_backbone, check_needs
from benchmarks.pipeline.session import Session
from benchmarks.pipeline.sources import encode_missing, plan_features, say_encoded
from benchmarks.system.progress import say
from zoo.files.atomic import check_writable


def extract_features(
    recipes: Sequence[Recipe | Ensemble],
    session: Session,
    *,
    batch_size: int | None = None,
    share: tuple[int, int] = (0, 1),
    engine: str = "local",
) -> Extraction:
    """Encode the frames in the windows of some rows into the stores that `run` reads.

    Args:
        recipes: resolved recipes and ensembles of one dataset.
        session: of the command.
        batch_size: images per forward pass; None for what suits the device.
        share: number of this process, and how many processes there are.
        engine: `local`, or `ray` for the machines of a cluster.

    Returns:
        Images computed and found, over all backbones.

    Raises:
        UserError: see `run`.
    """
    rows, _ = rows_of(recipes, session)
    check_needs(rows)
    check_writable(session.out)
    for row in rows:
        if row.recipe.on_pixels:
            say(f"{row.name}: its backbone trains, so there are no features to extract")
    total = Extraction()
    for group in by_backbone([row for row in rows if not row.recipe.on_pixels]):
        plan = plan_features(group, session.device if engine == "local" else "cpu")
        done = encode_missing(plan, session, batch_size=batch_size, share=share, engine=engine)
        if share[0] == 0:
            say_encoded(plan, done, session.dataset.root)
        total.add(done)
    return total
