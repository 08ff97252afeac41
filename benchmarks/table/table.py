"""The comparison table: cited figures from `published.csv` beside measured ones from committed records and own runs.

A cited Ego4D test figure never stands in a measured column, because the test labels are not public.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.config.files import recipe_version
from benchmarks.rows.find import RECORDS
from benchmarks.rows.schema import Result, bound_of, parts_of, read_result, shown_split
from benchmarks.table.groups import Group, groups_of
from registry import UserError, did_you_mean

PUBLISHED = Path(__file__).resolve().parent.parent / "published.csv"

THIS_MACHINE = "this machine"  # origin of a row that is no committed record

# Methods in the order of the published table; all others follow by name, floors and ceilings last.
ORDER = (
    *("GazeLSTM", "GazeLSTM + Gaze360", "GazePose", "GazePose, random start"),
    *("InternLSTM", "InternLSTM*", "InternLSTM**", "InternLSTM** smoothed", "Ensemble"),
)


@dataclass(frozen=True)
class TableRow:
    """One row of the table. All figures are fractions; None if unknown.

    `tied`: whether the row is statistically tied with the best row of its dataset and split, because no row there is
    better; None if there is nothing to decide it by. `rank`, `rank_low`, `rank_high`: see
    `benchmarks.evaluation.rank.Rank`; None if `tied` is. `compared`: number of rows compared with each other, this one
    included. `fitted`: whether smoothing or weights were fitted on the split shown, so that the figure is optimistic.
    `bound`: `floor` or `ceiling` if nothing is trained; such a row has no rank. `below`: floors above the row, by name.
    """

    method: str
    recipe: str = ""
    backbone: str = ""
    head: str = ""
    published_map: float | None = None
    published_source: str = ""
    dataset: str = ""
    split: str = ""
    map: float | None = None
    map_std: float | None = None
    map_low: float | None = None
    map_high: float | None = None
    tied: bool | None = None
    rank: int | None = None
    rank_low: int | None = None
    rank_high: int | None = None
    compared: int = 0
    fitted: bool = False
    bound: str = ""
    below: str = ""
    accuracy: float | None = None
    seeds: int = 0
    backbone_parameters: int = 0
    head_parameters: int = 0
    feature_seconds: float | None = None
    training_seconds: float | None = None
    origin: str = ""


def collect(out: Path | None) -> list[tuple[Result, str]]:
    """Read all results and their origins. A run on this machine replaces the committed record of the same name.

    Args:
        out: folder of the runs; None for the committed records alone.
    """
    found: dict[tuple[str, str], tuple[Result, str]] = {}
    for path in sorted(RECORDS.glob("*/*.json")):
        if path.parent.name in ("reliability", "photos", "people"):  # not records of rows
            continue
        result = read_result(path)
        found[result["dataset"]["name"], result["name"]] = result, f"record of {result['date'][:10]}"
    for path in sorted(out.glob("results/*/*/result.json")) if out is not None else ():
        result = read_result(path)
        found[result["dataset"]["name"], result["name"]] = result, THIS_MACHINE
    return list(found.values())


def named(names: Sequence[str], out: Path | None) -> list[tuple[Result, str]]:
    """Read the rows and records with these names or paths, like `collect`.

    Raises:
        UserError: no such row; suggests the nearest name.
    """
    known, found = collect(out), []
    for name in names:
        path = Path(name) / "result.json" if Path(name).is_dir() else Path(name)
        if path.suffix == ".json" and path.is_file():
            found.append((read_result(path), str(path)))
            continue
        own = [entry for entry in known if entry[0]["name"] == name]
        if not own:
            hint = did_you_mean(name, [result["name"] for result, _ in known])
            raise UserError(f"no finished row or committed record {name}{hint}")
        found += own
    return found


def rows(results: Sequence[tuple[Result, str]], groups: Sequence[Group] | None = None) -> list[TableRow]:
    """Make a row for each result, beside the cited figure it reproduces, and one for each other cited figure.

    Args:
        results: from `collect`.
        groups: of the results, from `groups_of`; None computes them.
    """
    cited = published_test_map()
    measured = measured_rows(results, groups_of([result for result, _ in results]) if groups is None else groups)
    reproduced = {_method(result)[1] for result, _ in results}
    only_cited = [
        TableRow(method=method, published_map=value, published_source=source)
        for method, (value, source) in cited.items()
        if method not in reproduced and method in ORDER
    ]
    place = {method: number for number, method in enumerate(ORDER)}
    return sorted(
        [*only_cited, *measured],
        key=lambda row: (
            row.bound != "",
            place.get(row.method.partition(" (")[0], len(ORDER)),
            row.method,
            row.recipe,
        ),
    )


def measured_rows(results: Sequence[tuple[Result, str]], groups: Sequence[Group]) -> list[TableRow]:
    """Make a row for each result with a labelled split, in order; arguments as in `rows`."""
    cited = published_test_map()
    places: dict[int, dict[str, Any]] = {
        id(result): {
            "tied": rank.tied,
            "rank": rank.rank,
            "rank_low": rank.low,
            "rank_high": rank.high,
            "compared": len(group.results),
        }
        for group in groups
        for result, rank in zip(group.results, group.ranks, strict=True)
        if rank.tied is not None
    }
    for group in groups:
        for number, result in enumerate(group.results):
            below = ", ".join(floor.name for floor in group.floors if number in floor.below)
            places.setdefault(id(result), {})["below"] = below
    return [
        replace(row, **places.get(id(result), {}))
        for result, origin in results
        for row in _measured(result, origin, cited)
    ]


def published_test_map() -> dict[str, tuple[float, str]]:
    """Method -> (cited mAP on the Ego4D test set as a fraction, source)."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        lines = []
        for line in (reader := csv.DictReader(file)):
            if None in line or None in line.values():
                raise UserError(f"{PUBLISHED}: line {reader.line_num} has more or fewer fields than the header")
            if line["split"] == "test" and line["metric"] == "mAP":
                lines.append(line)
    return {
        line["method"]: (round(float(line["value"]) / 100, 6), f"{line['source']}, {line['year']}") for line in lines
    }


def _measured(result: Result, origin: str, cited: dict[str, tuple[float, str]]) -> list[TableRow]:
    split = shown_split(result)
    if split is None:
        return []
    figures = result["splits"][split]["metrics"]
    low, high = figures["mAP"]["interval"] or (None, None)
    method, published = _method(result)
    value, source = cited.get(published or "", (None, ""))
    backbone = result["backbone"]
    commit = result["environment"]["code"]
    sha = f", {commit['commit'][:7]}{'+' if commit['dirty'] else ''}" if commit["commit"] else ""
    now, then = recipe_version(result["config"]["recipe"]), result["config"]["version"]
    older = f", version {then} of {now}" if now is not None and then < now else ""
    return [
        TableRow(
            method=method,
            recipe=result["name"],
            backbone=", ".join(dict.fromkeys(map(_backbone, parts_of(backbone)))),
            head=", ".join(part["type"] for part in parts_of(result["head"])),
            published_map=value,
            published_source=source,
            dataset=result["dataset"]["name"],
            split=split,
            map=figures["mAP"]["mean"],
            map_std=figures["mAP"]["std"],
            map_low=low,
            map_high=high,
            accuracy=figures["accuracy"]["mean"],
            fitted=split == "val" and bool(result["fitted"]),
            bound=bound_of(result) or "",
            seeds=len(result["seeds"]),
            backbone_parameters=backbone["parameters"],
            head_parameters=result["head"]["parameters"],
            feature_seconds=result["seconds"]["features"],
            training_seconds=result["seconds"]["training"],
            origin=origin + sha + older,
        )
    ]


def _backbone(section: Mapping[str, Any]) -> str:
    name = section["type"]
    name += f" for {section['stands_in_for']}" if section["stands_in_for"] else ""
    if section["weights"].get("name") == _RENDERS:
        return name + " (renders)"
    return name + (" (random init)" if section["weights"]["random_init"] else "")


def _method(result: Result) -> tuple[str, str | None]:
    """A row's method, and the method of `published.csv` it reproduces; None if the command line changed the recipe.

    Naming the file of weights that the recipe starts from is not a change, nor is a checkpoint that is scored as it is.
    """
    config, limit = result["config"], result["config"]["limit"]
    named = ["checkpoint=", *(["weights="] if _has_own_weights(result) else [])]
    changes = [change for change in config["changes"] if not change.startswith(tuple(named))]
    in_words = {f"limit={limit}": ""} | {f"init={name}": f" ({words})" for name, words in _STARTS.items()}
    start = "".join(in_words.get(change, "") for change in changes)
    changed = " (changed)" if [change for change in changes if change not in in_words] else ""
    scored = " (checkpoint)" if config.get("checkpoint") else ""
    bound = f" ({bound_of(result)})" if bound_of(result) else ""
    partial = " (partial)" if limit else ""
    return config["method"] + bound + start + changed + scored + partial, None if changes else config["published"]


def _has_own_weights(result: Result) -> bool:
    """Whether a row's backbone has the weights that its recipe starts from, and that have to be named."""
    start, backbone = result["head"].get("initialised_from"), result["backbone"]
    if start is not None and start["kind"] is not None:
        return start["kind"] == result["config"].get("init")
    large = _LARGE_WEIGHTS.get(backbone["type"])
    return large is not None and backbone["weights"].get("name") == large


OLDER = re.compile(r", version \d+ of \d+$")  # in the origin of a row that an older version of its recipe made

_RENDERS = "gaze_resnet18_renders"  # name in records of the shipped weights for `init=renders`

# A start that the command line chose, in words: the same method trained from other weights has a row of its own.
_STARTS = {
    "random": "from random weights",
    "imagenet": "from ImageNet",
    "gaze360": "from Gaze360",
    "renders": "from renders",
}

# Backbone -> its published weights, which are too large to ship. A copy has the name of its folder in the record.
_LARGE_WEIGHTS = {"internvit_6b": "InternViT-6B-448px-V1-5"}
