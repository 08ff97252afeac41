"""A model's card in the form of the Hugging Face hub: YAML with licence, tags and figures, then Markdown."""

from collections.abc import Sequence

from zoo.cards import Card, Figure, in_markdown

# Licence -> the hub's identifier.
_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "unknown": "unknown"}
# First word of a figure's metric -> the hub's identifier.
_METRICS = {"mAP": "mean_average_precision", "accuracy": "accuracy", "AUC": "roc_auc", "F1": "f1"}
_RENDERED = "**Trained on rendered faces only: no figure here shows how it performs on real ones.**"
_CITATION = """\
@software{lamzoo,
  title   = {lamzoo: a plug-in model zoo and benchmark harness for Looking-At-Me},
  author  = {{The lamzoo developers}},
  license = {Apache-2.0}
}

@inproceedings{grauman2022ego4d,
  title     = {Ego4D: Around the World in 3,000 Hours of Egocentric Video},
  author    = {Grauman, Kristen and others},
  booktitle = {CVPR},
  year      = {2022}
}"""


def hub_card(card: Card, rendered_only: bool) -> str:
    """Render a card.

    The hub shows one figure per dataset and split, the first one of the card; the text lists all.

    Args:
        card: of a model folder; its name is that of the folder.
        rendered_only: trained on rendered faces only.
    """
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="video-classification",
            task_name="Looking-At-Me",
            dataset_type=figure.split.partition(" ")[0].lower(),
            dataset_name=figure.split.rpartition(" ")[0],
            dataset_split=figure.split.rpartition(" ")[2],
            metric_type=_METRICS.get(figure.metric.partition(",")[0], "average_precision"),
            metric_name=figure.metric,
            metric_value=figure.value,
        )
        for figure in headlines(card.figures)
    ]
    licence = card.weights[0].licence
    data = ModelCardData(
        model_name=card.name,
        license=_LICENCES.get(licence, "other"),
        license_name=None if licence in _LICENCES else licence,
        library_name="lamzoo",
        pipeline_tag="video-classification",
        tags=["looking-at-me", "gaze", "eye-contact", "egocentric-video", *(["synthetic"] if rendered_only else [])],
        eval_results=results,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {in_markdown(card.name)}",
        f"{in_markdown(card.title)}.",
        in_markdown(card.description),
        *([_RENDERED] if rendered_only else []),
        "## Use it",
        "In a checkout of lamzoo, find the people who look at the camera wearer. `MODEL` is this folder, or this "
        "repository's name.",
        "```console\n$ python bench.py predict VIDEO.mp4 --model MODEL -o OUT/\n```",
        '```python\nfrom zoo import load_model\n\nfaces = load_model("MODEL").predict("VIDEO.mp4")  # a pandas frame: '
        "time, track, box, score, looking\n```",
        f"## Figures\n\n{_figures(card.figures)}",
        f"## Training\n\n{in_markdown(card.training)}",
        "## Limits\n\n" + "\n".join(f"- {in_markdown(limit)}" for limit in card.limits),
        "## Files\n\n"
        + "\n".join(
            f"- {in_markdown(each.file)}: {in_markdown(each.origin)}; licence: {in_markdown(each.licence)}; sha256 "
            f"`{each.sha256}`"
            for each in card.weights
        ),
        "## Citation\n\nCite the authors of the method too; `docs/citing.md` in lamzoo names them.\n\n"
        f"```bibtex\n{_CITATION}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def headlines(figures: Sequence[Figure]) -> list[Figure]:
    """The first figure of each dataset and split."""
    return list({figure.split: figure for figure in reversed(figures)}.values())[::-1]


def _figures(figures: Sequence[Figure]) -> str:
    lines = [
        f"| {in_markdown(figure.metric)} | {figure.value:g} | {in_markdown(figure.split)} | "
        f"{in_markdown(figure.source)} |"
        for figure in figures
    ]
    return "\n".join(["| metric | value | split | source |", "| --- | --- | --- | --- |", *lines])
