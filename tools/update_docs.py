"""Copy finished runs into the committed records, and render the README and the docs from them.

example:
  python bench.py --recipe all --seeds table && python -m tools.update_docs --out runs
  python -m tools.speed --record && python -m tools.update_docs --speed-only
"""

from __future__ import annotations

import argparse
import configparser
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tabulate import tabulate

from benchmarks.rows.find import RECORDS
from benchmarks.rows.folder import folder_name
from benchmarks.rows.provenance import HOME
from benchmarks.rows.schema import Result, bound_of, read_result
from benchmarks.table.groups import FITTED
from benchmarks.table.render import TableView, render, table_text
from benchmarks.table.table import collect, named, rows
from tools.speed import harness
from zoo.files.atomic import replacing, write_json, write_text

README = HOME / "README.md"
RESULTS = HOME / "docs" / "results.md"
# The table: in the README the rows of the published comparison, in results.md all of it.
TABLE = re.compile(r"(<!-- table: rendered by tools/update_docs.py -->\n).*?(<!-- end of table -->)", re.DOTALL)
MAIN_ROWS = ("gazepose", "internlstm", "internlstm_flip", "internlstm_flip_tta")
MAIN_COLUMNS = ("method", "cited", "map", "interval", "seeds")
SPLITS = re.compile(r"(<!-- splits: rendered by tools/update_docs.py -->\n).*?(<!-- end of splits -->)", re.DOTALL)

# The sweep over backbones and heads: its figures, its picture, and its place in results.md.
CROSSED = RECORDS / "sweeps" / "synthlam" / "backbone_head.json"
CROSSED_PICTURE = HOME / "docs" / "assets" / "backbone_head.svg"
CROSSING = re.compile(r"(<!-- crossed: rendered by tools/update_docs.py -->\n).*?(<!-- end of crossed -->)", re.DOTALL)

PERFORMANCE = HOME / "docs" / "performance.md"
# Between the marks: the table of the records in `benchmarks/records/speed/<kind>/`.
SPEED = re.compile(r"(<!-- speed: (\w+), rendered by tools/update_docs.py -->\n).*?(<!-- end of speed -->)", re.DOTALL)
SPEED_ORDER = [
    *("test_index", "train_index", "train_index_again", "map", "map_csv"),
    *("command_score", "command_fuse", "command_submit"),
    *("windows", "head_step", "scoring"),
    *("video_geometry", "video_gaze_nano_lstm"),
]

OUTCOMES, AGAIN = ("passed", "failed", "skipped"), "of these, passed on the second try"
RELIABILITY = HOME / "docs" / "reliability.md"
RELIABLE = re.compile(r"(<!-- (\S+): rendered by tools/update_docs.py -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


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
    measured = [row for row in rows(named(MAIN_ROWS, None)) if row.recipe]
    table = render(measured, TableView("github", MAIN_COLUMNS))
    return TABLE.sub(lambda marks: f"{marks[1]}\n{table}\n\n{marks[2]}", text)


def render_results(text: str) -> str:
    """The page on results with its figures of the committed records."""
    text = TABLE.sub(lambda marks: f"{marks[1]}\n{table_text(None)}\n\n{marks[2]}", text)
    text = SPLITS.sub(lambda marks: f"{marks[1]}\n{splits_table()}\n\n{marks[2]}", text)
    record = json.loads(CROSSED.read_text(encoding="utf-8")) if CROSSED.exists() else None
    return text if record is None else CROSSING.sub(lambda m: f"{m[1]}\n{crossed_table(record)}\n\n{m[2]}", text)


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
        allowed, ratio = record["seconds_allowed"], f"{_digits(record['ratio'])}x"
        wanted = [f"{record[word]:,g}x" if record[word] is not None else "" for word in ("must", "aim")]
        times = [harness.seconds_text(record[key]) for key in ("plain_seconds", "seconds")]
        most = "" if allowed is None else harness.seconds_text(allowed)
        body.append([record["what"], record["against"], *times, ratio, *wanted, most])
    head = ["work", "baseline", "baseline time", "our time", "ratio", "must", "aim", "our limit"]
    table = tabulate(body, head, tablefmt="github", disable_numparse=True)
    loads = [record["load"] for record in records if record["load"] is not None]
    notes = [*sorted({_measured_on(record) for record in records}), *_growth(records), *video_lines(records)]
    if loads:
        notes.append(
            f"- Load averages at the end: {min(loads):.1f} to {max(loads):.1f}, including the measurement's own 1."
        )
    return "\n".join([table, "", *notes])


def _digits(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}"


def _measured_on(record: dict[str, Any]) -> str:
    where, commit = record["environment"], record["environment"]["code"]["commit"]
    changed = " with changes" if record["environment"]["code"]["dirty"] else ""
    packages = ", ".join(f"{name} {where['packages'][name]}" for name in ("numpy", "pandas"))
    return (
        f"- Measured on {record['date'][:10]} on {where['cores']} cores of {where['processor']}, {where['device']}, "
        f"Python {where['python']}, {packages}, at commit {(commit or 'unknown')[:7]}{changed}."
    )


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


def render_reliability(text: str) -> str:
    """The page on reliability with its tables of the committed records."""
    tables = {
        "faults": faults_table,
        "bad_input": bad_input_table,
        "soak": soak_table,
        "versions": versions_table,
        "gpu": gpu_table,
    }

    def render(marks: re.Match[str]) -> str:
        path = HOME / "benchmarks" / "records" / "reliability" / f"{marks[2]}.json"
        if marks[2] == "gpu" and not path.exists():
            return f"{marks[1]}\nNo GPU has been available yet, so there is no record.\n\n{marks[3]}"
        table = tables[marks[2]](json.loads(path.read_text(encoding="utf-8")))
        return f"{marks[1]}\n{table}\n\n{marks[3]}"

    return RELIABLE.sub(render, text)


def bad_input_table(record: dict[str, Any]) -> str:
    """Cases and outcomes per kind of input."""
    columns = {
        "kind": "input",
        "cases": "cases",
        "accepted": "accepted",
        "refused": "refused in one line",
        "traceback": "tracebacks",
        "hang": "hangs",
        "memory": "too much memory",
        "escape": "outside the folder",
        "message": "poor messages",
    }
    body = [[str(kind[name]) for name in columns] for kind in (*record["kinds"], record["all"])]
    return tabulate(body, list(columns.values()), tablefmt="github", disable_numparse=True)


def requirements() -> list[Requirement]:
    """The requirements in setup.cfg with all extras except `dev`."""
    setup = configparser.ConfigParser()
    setup.read(HOME / "setup.cfg", encoding="utf-8")
    texts = [setup["options"]["install_requires"]]
    texts += [text for extra, text in setup["options.extras_require"].items() if extra != "dev"]
    lines = (line.strip() for text in texts for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def versions_table(record: dict[str, Any]) -> str:
    """The oldest and the newest versions of the requirements that the tests ran with, and the counts of outcomes."""
    parts = [record[which] for which in ("oldest", "newest")]
    packages = [
        {canonicalize_name(name): version for name, version in part["environment"]["packages"].items()}
        for part in parts
    ]
    body = [["Python", *(part["environment"]["python"] for part in parts)]]
    for name in dict.fromkeys(canonicalize_name(each.name) for each in requirements()):
        body.append([name, *(of.get(name, "not yet tested") for of in packages)])
    body += [[f"tests {outcome}", *(f"{part[outcome]:,}" for part in parts)] for outcome in OUTCOMES]
    body.append([AGAIN, *(str(len(part["passed when run again"])) for part in parts)])
    codes = [part["environment"]["code"] for part in parts]
    body.append(["at commit", *(code["commit"][:7] + " with changes" * bool(code["dirty"]) for code in codes)])
    return tabulate(body, ["", "oldest", "newest"], tablefmt="github", disable_numparse=True)


def soak_table(record: dict[str, Any]) -> str:
    """The resources of a process after the warm-up and at the end of a soak test, and their growth."""
    body = []
    for name, measure in record["measures"].items():
        if name in ("uss", "pss"):  # not limited: they depend on other processes
            continue
        ends = [measure["first"], measure["last"]]
        shown = [f"{value / 1e6:.0f} MB" if name in ("rss", "anonymous") else f"{value:g}" for value in ends]
        growth, low, high = (f"{100 * measure[key]:+.2f} %" for key in ("growth", "low", "high"))
        body.append([name, *shown, growth, f"{low} to {high}"])
    head = ["measure", "after the warm-up", "at the end", "growth per hour", "95 % interval"]
    table = tabulate(body, head, tablefmt="github", disable_numparse=True)
    where, code = record["environment"], record["environment"]["code"]
    changed = " with changes" if code["dirty"] else ""
    return (
        f"{table}\n\n- {record['rounds']} rounds in {record['minutes']:.0f} minutes on {where['cores']} cores of "
        f"{where['processor']}, torch {where['packages']['torch']}, at commit {code['commit'][:7]}{changed}."
    )


def gpu_table(record: dict[str, Any]) -> str:
    """The steps of `tools.check_gpu` with their outcomes."""
    body = [
        [
            each["step"],
            each["needs"],
            each["outcome"],
            ", ".join(f"{name} {fact}" for name, fact in each["facts"].items()),
        ]
        for each in record["steps"]
    ]
    table = tabulate(body, ["step", "needs", "outcome", "found"], tablefmt="github", disable_numparse=True)
    where, code = record["environment"], record["environment"]["code"]
    changed = " with changes" if code["dirty"] else ""
    return (
        f"{table}\n\n- Checked on {record['date'][:10]} on {where['device']}, torch {where['packages']['torch']}, at "
        f"commit {(code['commit'] or 'unknown')[:7]}{changed}."
    )


def faults_table(record: dict[str, Any]) -> str:
    """Injections by kind and command, losses, recovery times, and the machine."""
    outcomes = record["outcomes"]
    commands = sorted({each["command"] for each in outcomes})
    body = []
    for kind in [*dict.fromkeys(each["kind"] for each in outcomes), None]:
        own = [each for each in outcomes if kind in (None, each["kind"])]
        counts = [str(sum(each["command"] == command for each in own)) for command in commands]
        lost = sum(each["verdict"] == "same" for each in own)
        ratios = [each["recovery"] / each["undisturbed"] for each in own]
        seconds = sorted(each["recovery"] for each in own)
        times = [f"{np.median(seconds):.1f} s", f"{max(seconds):.1f} s", f"{np.median(ratios):.2f}x"]
        body.append([kind or "all", *counts, str(len(own)), str(len(own) - lost), *times])
    head = [
        "fault",
        *commands,
        "all",
        "lost or wrong",
        "recovery, median",
        "recovery, worst",
        "of an undisturbed run, median",
    ]
    table = tabulate(body, head, tablefmt="github", disable_numparse=True)
    struck = sum(each["fired"] for each in outcomes)
    where, code = record["environment"], record["environment"]["code"]
    changed = " with changes" if code["dirty"] else ""
    return "\n".join(
        [
            table,
            "",
            f"- {struck} of {len(outcomes)} faults struck before the run ended. The others came too late, and must "
            "do no harm either.",
            f"- Injected on {record['date']}, seed {outcomes[0]['seed']}, on {where['cores']} cores of "
            f"{where['processor']}, Python {where['python']}, at commit {(code['commit'] or 'unknown')[:7]}{changed}; "
            "several at a time on a busy machine, so the seconds only compare recovery with an undisturbed run.",
        ]
    )


def main() -> None:
    """Update the records, and render the README and the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    parser.add_argument("--speed-only", action="store_true", help="render only performance.md and reliability.md")
    parser.add_argument("--reliability-only", action="store_true", help="render only reliability.md")
    options = parser.parse_args()
    write_text(RELIABILITY, render_reliability(RELIABILITY.read_text(encoding="utf-8")))
    print(RELIABILITY.relative_to(HOME))
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
