"""Copy finished runs into the committed records, and render the README and the docs from them.

example:
  python bench.py --recipe all --seeds table && python -m tools.update_docs --out runs
  python -m tools.speed --record && python -m tools.update_docs --speed-only
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from benchmarks.rows.find import RECORDS
from benchmarks.rows.folder import folder_name
from benchmarks.rows.provenance import HOME
from benchmarks.rows.schema import Result, bound_of, read_result
from benchmarks.table.groups import FITTED
from benchmarks.table.render import TableView, render, table_text
from benchmarks.table.table import collect, rows
from tools.record_tables import PAGES, filled, render_records
from tools.speed import harness
from zoo.files.atomic import replacing, write_json, write_text

README = HOME / "README.md"
RESULTS = HOME / "docs" / "results.md"
# Of the table, the README has the rows of the published comparison.
MAIN_ROWS = ("gazelstm", "gazelstm_gaze360", "gazepose", "internlstm", "internlstm_flip", "internlstm_flip_tta")
MAIN_COLUMNS = ("method", "cited", "map", "interval", "seeds")

# The sweep over backbones and heads: its figures and its picture.
CROSSED = RECORDS / "sweeps" / "synthlam" / "backbone_head.json"
CROSSED_PICTURE = HOME / "docs" / "assets" / "backbone_head.svg"

PERFORMANCE = HOME / "docs" / "performance.md"
# Between the marks: the table of the records in `benchmarks/records/speed/<kind>/`.
SPEED = re.compile(r"(<!-- speed: (\w+), rendered by tools/update_docs.py -->\n).*?(<!-- end of speed -->)", re.DOTALL)
SPEED_ORDER = [
    *("test_index", "train_index", "train_index_again", "map", "map_csv"),
    *("command_score", "command_fuse", "command_submit"),
    *("windows", "head_step", "head_step_loaded", "scoring", "video", "video_script"),
    *("extract_cpu", "extract_loader_cpu", "extract_pipeline_cpu", "extract_plan_cpu", "extract_two_cpu"),
]


def update_records(out: Path) -> list[Path]:
    """Copy the results of unchanged recipes into `benchmarks/records/<dataset>/`."""
    written = []
    for path in sorted(out.glob("results/*/*/result.json")):
        result = read_result(path)
        if not result["config"]["changes"]:
            written.append(RECORDS / result["dataset"]["name"] / f"{result['name']}.json")
            write_json(written[-1], result)
    return written


def render_readme(text: str) -> str:
    """The README with the main rows of the committed records."""
    main = [row for row in rows(collect(None)) if row.recipe in MAIN_ROWS]  # compared with all rows, as in results.md
    return filled(text, {"table": lambda: render(main, TableView("github", MAIN_COLUMNS))})


def render_results(text: str) -> str:
    """The page on results with its figures of the committed records."""
    crossed = json.loads(CROSSED.read_text(encoding="utf-8"))
    tables = {"table": lambda: table_text(None), "splits": splits_table, "crossed": lambda: crossed_table(crossed)}
    return filled(text, tables)


def update_crossed(out: Path) -> None:
    """Record the finished sweep over `backbone` and `head`, if there is one, and copy its picture."""
    for path in sorted(out.glob("sweeps/synthlam/*/table.csv")):
        table = pd.read_csv(path)
        if table.columns[:2].tolist() != ["backbone", "head"]:
            continue
        results = [read_result(out / "results" / "synthlam" / folder_name(row) / "result.json") for row in table["row"]]
        commits = sorted({result["environment"]["code"]["commit"] for result in results})
        dates = sorted(result["date"] for result in results)
        content = {"commits": commits, "date": dates[-1], "rows": table.to_dict("records")}
        write_json(CROSSED, content)
        with replacing(CROSSED_PICTURE) as temporary:
            shutil.copy(path.with_name("heatmap.svg"), temporary)


def crossed_table(record: Mapping[str, Any]) -> str:
    """Test mAP of each backbone under each head, with the means of lines and columns and what they explain."""
    table = pd.DataFrame(record["rows"])
    heads, backbones = table["head"].unique(), table["backbone"].unique()
    means = table.pivot(index="backbone", columns="head", values="mAP").loc[backbones, heads]
    body = []
    for backbone, of_backbone in table.groupby("backbone", sort=False):
        cells = [
            f"{100 * row.mAP:.2f} ± {100 * row.std:.2f} ({100 * row.low:.1f} to {100 * row.high:.1f})"
            for row in of_backbone.itertuples()
        ]
        body.append([backbone, *cells, f"{100 * means.loc[backbone].mean():.2f}"])
    body.append(
        ["mean", *(f"{100 * means[head].mean():.2f}" for head in heads), f"{100 * means.to_numpy().mean():.2f}"]
    )
    text = tabulate(body, ["backbone \\ head", *heads, "mean"], tablefmt="github", disable_numparse=True)
    everything = means.to_numpy()
    total = ((everything - everything.mean()) ** 2).mean()
    by_backbone, by_head = (((means.mean(axis=axis) - everything.mean()) ** 2).mean() / total for axis in (1, 0))
    neither = max(0.0, 1 - by_backbone - by_head)
    commits = ", ".join(commit[:7] for commit in record["commits"])
    return (
        f"{text}\n\n- mAP: mean and standard deviation over {table['seeds'].iloc[0]} seeds, with its 95 % interval.\n"
        f"- Of the variance between the cells, {100 * by_backbone:.0f} % lies between backbones, {100 * by_head:.0f} % "
        f"between heads, and {100 * neither:.0f} % in neither alone.\n- Measured on {record['date'][:10]} at {commits}."
    )


def splits_table() -> str:
    """Validation and test mAP, and the values fitted on validation, per committed record."""
    records = {row["name"]: row for row, _ in collect(None)}
    body = []
    for name in (row.recipe for row in rows(collect(None)) if row.recipe in records):
        record = records[name]
        cells = []
        for split in ("val", "test"):
            if split in record["splits"]:
                metric = record["splits"][split]["metrics"]["mAP"]
                by_seed = [100 * value for value in metric["per_seed"] if value is not None]
                mark = f" {FITTED}" if split == "val" and record["fitted"] else ""
                seeds = f"{min(by_seed):.1f} to {max(by_seed):.1f}" if bound_of(record) is None else ""
                cells += [f"{np.mean(by_seed):.2f}{mark}", seeds]
        body.append([name, *cells, _fitted(record)])
    head = ["row", "val mAP", "seeds", "test mAP", "seeds", "fitted on validation"]
    return tabulate(body, head, tablefmt="github", disable_numparse=True)


def _fitted(record: Result) -> str:
    words = [f"{member} {np.mean(weights):.2f}" for member, weights in record["fitted"].get("weights", {}).items()]
    if "smoothing window" in record["fitted"]:
        words.append(f"median of {record['fitted']['smoothing window']} frames")
    return ", ".join(words)


def render_performance(text: str) -> str:
    """The page on performance with its tables of the committed records."""
    return SPEED.sub(lambda marks: f"{marks[1]}\n{speed_table(marks[2])}\n\n{marks[3]}", text)


def speed_table(kind: str) -> str:
    """The records of one kind of machine as a table, and a list of the machines below it."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((harness.RECORDS / kind).glob("*.json"))]
    place = {name: number for number, name in enumerate(SPEED_ORDER)}
    records.sort(key=lambda record: place.get(record["name"], len(place)))
    body = []
    for record in records:
        times = [harness.seconds_text(record[key]) for key in ("plain_seconds", "seconds")]
        body.append([record["what"], record["against"], *times, f"{_digits(record['ratio'])}x"])
    head = ["work", "baseline", "baseline time", "our time", "ratio"]
    table = tabulate(body, head, tablefmt="github", disable_numparse=True)
    notes = [*_measured_on(records), *_growth(records), *video_lines(records)]
    busy = [record["busy"] for record in records if record.get("busy") is not None]
    if busy:
        notes.append(f"- Before each pair, other processes kept at most {max(busy):g} cores busy.")
    return "\n".join([table, "", *notes])


def _digits(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"


def _measured_on(records: list[dict[str, Any]]) -> list[str]:
    """A line per day and machine, with the commits."""
    commits: dict[str, set[str]] = {}
    for record in records:
        where, code = record["environment"], record["environment"]["code"]
        packages = ", ".join(f"{name} {where['packages'][name]}" for name in ("numpy", "pandas"))
        line = (
            f"- Measured on {record['date'][:10]} on {where['cores']} cores of {where['processor']}, "
            f"{where['device']}, Python {where['python']}, {packages}"
        )
        changed = " with changes" if code["dirty"] else ""
        commits.setdefault(line, set()).add(f"{(code['commit'] or 'unknown')[:7]}{changed}")
    return [f"{line}, at {', '.join(sorted(commits[line]))}." for line in sorted(commits)]


def video_lines(records: list[dict[str, Any]]) -> list[str]:
    """A line per record of `predict`, on speed, processor time and memory."""
    lines = []
    for record in records:
        if "processor_ms_per_frame" in record["facts"]:
            facts = record["facts"]
            speeds = [facts["frames"] / record[key] for key in ("plain_seconds", "seconds")]
            memory = ", ".join(
                f"{size:,} MB in {minutes:g} minutes of video"
                for minutes, size in zip(facts["minutes"], facts["megabytes"], strict=True)
            )
            lines.append(
                f"- {record['name']}: {speeds[0]:.1f} frames per second by the baseline, {speeds[1]:.1f} by ours; "
                f"processor time per frame {facts['processor_ms_per_frame'][0]:.0f} ms and "
                f"{facts['processor_ms_per_frame'][1]:.0f} ms; our peak memory {memory}."
            )
    return lines


def _growth(records: list[dict[str, Any]]) -> list[str]:
    """A line per record with several sizes, on how its time grows."""
    lines = []
    for record in records:
        if "exponent" in record["facts"]:
            facts = record["facts"]
            sizes = zip(facts["frames"], facts["seconds"], strict=True)
            times = ", ".join(f"{frames:,} frames {harness.seconds_text(seconds)}" for frames, seconds in sizes)
            lines.append(
                f"- {record['name']}, first read of trees of several sizes: {times}. The time grows as the number of "
                f"frames to the power {facts['exponent']:.2f}."
            )
    return lines


def main() -> None:
    """Update the records, and render the README and the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    parser.add_argument("--speed-only", action="store_true", help="as --reliability-only, and performance.md")
    parser.add_argument(
        "--reliability-only", action="store_true", help=f"render only {', '.join(page.name for page in PAGES)}"
    )
    options = parser.parse_args()
    for page in PAGES:
        write_text(page, render_records(page.read_text(encoding="utf-8")))
        print(page.relative_to(HOME))
    if options.reliability_only:
        return
    write_text(PERFORMANCE, render_performance(PERFORMANCE.read_text(encoding="utf-8")))
    print(PERFORMANCE.relative_to(HOME))
    if options.speed_only:
        return
    out = options.out
    for path in update_records(out):
        print(path.relative_to(HOME))
    update_crossed(out)
    write_text(README, render_readme(README.read_text(encoding="utf-8")))
    write_text(RESULTS, render_results(RESULTS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
