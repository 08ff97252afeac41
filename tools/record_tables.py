"""Tables of the records on reliability and on photographs, rendered into the docs by tools.update_docs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tabulate import tabulate

from benchmarks.commands.doctor import read_setup
from benchmarks.rows.find import RECORDS
from benchmarks.rows.provenance import HOME

RELIABILITY = HOME / "docs" / "reliability.md"
RELIABILITY_TABLES = HOME / "docs" / "reliability-tables.md"
ACCURACY = HOME / "docs" / "video-accuracy.md"
PAGES = (RELIABILITY, RELIABILITY_TABLES, ACCURACY)
MARKS = re.compile(r"(<!-- (\S+): rendered by tools/update_docs.py -->\n).*?(<!-- end of \2 -->)", re.DOTALL)

RECORDED = RECORDS / "reliability"
PHOTOGRAPHS = RECORDS / "photos" / "results.json"
PEOPLE = RECORDS / "people" / "results.json"
UNLIMITED = ("uss", "pss")  # measures of a soak test that depend on other processes
RENAMED = {"rss": "resident memory", "anonymous": "anonymous memory", "children": "child processes"}
NO_GPU = "not run: no GPU has been available yet"

OUTCOMES, AGAIN = ("passed", "failed", "skipped"), "of these, passed on the second try"


def render_records(text: str) -> str:
    """A page with the tables between its marks made from the committed records."""
    return filled(text, TABLES)


def filled(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """A page with each table between its marks made again.

    Raises:
        KeyError: a mark has the name of no table.
    """
    return MARKS.sub(lambda marks: f"{marks[1]}\n{tables[marks[2]]()}\n\n{marks[3]}", text)


def read(name: str) -> dict[str, Any]:
    """A record on reliability, by its name."""
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


def figures_table() -> str:
    """One line per record on reliability, with links to their tables."""
    faults, bad, soak = read("faults")["outcomes"], read("bad_input"), read("soak")
    wrong = sum(each["verdict"] != "same" for each in faults)
    limited = {name: measure for name, measure in soak["measures"].items() if name not in UNLIMITED}
    fastest = max(limited, key=lambda name: limited[name]["growth"])
    total = bad["all"]
    body = [
        [
            _link("faults", "faults"),
            f"{len(faults)} faults of {len({each['kind'] for each in faults})} kinds in running commands",
            f"{wrong} ended with other files than an undisturbed run",
        ],
        [
            _link("bad input", "bad-input"),
            f"{total['cases']:,} inputs of {len(bad['kinds'])} kinds",
            f"{total['accepted']:,} accepted, {total['refused']:,} refused in one line; {_unclean(total)} crashed, "
            "hung, used too much memory, touched files outside their folder or got a poor message",
        ],
        [
            _link("long run", "long-runs"),
            f"{soak['rounds']} rounds in {soak['minutes']:.0f} minutes",
            f"{len(soak['grows'])} of {len(limited)} resources grew faster than {100 * soak['limit']:g} % per hour; "
            f"the fastest, {RENAMED.get(fastest, fastest)}, by {100 * limited[fastest]['growth']:.2f} %",
        ],
        *([_link(f"{which} versions", "versions"), *_versions(which)] for which in ("oldest", "newest")),
        [_link("GPU", "gpus"), "kernels, extraction, memory and several processes on a GPU", _gpu()],
    ]
    return tabulate(body, ["test", "tried", "result"], tablefmt="github", disable_numparse=True)


def _link(words: str, anchor: str) -> str:
    return f"[{words}](reliability-tables.md#{anchor})"


def _unclean(total: dict[str, Any]) -> int:
    return sum(total[name] for name in ("traceback", "hang", "memory", "escape", "message"))


def _versions(which: str) -> list[str]:
    """What the tests ran with, and their outcome."""
    part = read("versions")[which]
    installed = _installed(part)
    untested = [name for name in _names() if name not in installed]
    result = f"{part['passed']:,} tests passed, {part['failed']} failed, {part['skipped']} skipped"
    if untested:
        result += f"; not yet tested: {', '.join(untested)}"
    where = part["environment"]
    return [f"tests with Python {where['python']} and torch {installed['torch']}, at {_commit(where['code'])}", result]


def _gpu() -> str:
    if not (RECORDED / "gpu.json").exists():
        return NO_GPU
    record = read("gpu")
    passed = sum(each["outcome"] == "passed" for each in record["steps"])
    return f"{passed} of {len(record['steps'])} steps passed on {record['environment']['device']}"


def _installed(part: dict[str, Any]) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in part["environment"]["packages"].items()}


def _names() -> list[str]:
    """The names of the requirements in setup.cfg, each once."""
    return list(dict.fromkeys(canonicalize_name(each.name) for each in requirements()))


def _commit(code: dict[str, Any]) -> str:
    return (code["commit"] or "unknown")[:7] + " with changes" * bool(code["dirty"])


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
    setup = read_setup()
    texts = [setup["options"]["install_requires"]]
    texts += [text for extra, text in setup["options.extras_require"].items() if extra != "dev"]
    lines = (line.strip() for text in texts for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def versions_table(record: dict[str, Any]) -> str:
    """The oldest and the newest versions of the requirements that the tests ran with, and the counts of outcomes."""
    parts = [record[which] for which in ("oldest", "newest")]
    packages = [_installed(part) for part in parts]
    body = [["Python", *(part["environment"]["python"] for part in parts)]]
    for name in _names():
        body.append([name, *(of.get(name, "not yet tested") for of in packages)])
    body += [[f"tests {outcome}", *(f"{part[outcome]:,}" for part in parts)] for outcome in OUTCOMES]
    body.append([AGAIN, *(str(len(part["passed when run again"])) for part in parts)])
    body.append(["at commit", *(_commit(part["environment"]["code"]) for part in parts)])
    return tabulate(body, ["", "oldest", "newest"], tablefmt="github", disable_numparse=True)


def soak_table(record: dict[str, Any]) -> str:
    """The resources of a process after the warm-up and at the end of a soak test, and their growth."""
    body = []
    for name, measure in record["measures"].items():
        if name in UNLIMITED:
            continue
        ends = [measure["first"], measure["last"]]
        shown = [f"{value / 1e6:.0f} MB" if name in ("rss", "anonymous") else f"{value:g}" for value in ends]
        growth, low, high = (f"{100 * measure[key]:+.2f} %" for key in ("growth", "low", "high"))
        body.append([RENAMED.get(name, name), *shown, growth, f"{low} to {high}"])
    head = ["measure", "after the warm-up", "at the end", "growth per hour", "95 % interval"]
    table = tabulate(body, head, tablefmt="github", disable_numparse=True)
    where = record["environment"]
    return (
        f"{table}\n\n- {record['rounds']} rounds in {record['minutes']:.0f} minutes on {where['cores']} cores of "
        f"{where['processor']}, torch {where['packages']['torch']}, at commit {_commit(where['code'])}."
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
    where = record["environment"]
    return (
        f"{table}\n\n- Checked on {record['date'][:10]} on {where['device']}, torch {where['packages']['torch']}, at "
        f"commit {_commit(where['code'])}."
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
    where = record["environment"]
    return "\n".join(
        [
            table,
            "",
            f"- {struck} of {len(outcomes)} faults struck before the run ended. The others came too late, and must "
            "do no harm either.",
            f"- Injected on {record['date']}, seed {outcomes[0]['seed']}, on {where['cores']} cores of "
            f"{where['processor']}, Python {where['python']}, at commit {_commit(where['code'])}; "
            "several at a time on a busy machine, so the seconds only compare recovery with an undisturbed run.",
        ]
    )


def photographs_table() -> str:
    """AUC of the models on photographs, by size and head angle, with 95 % intervals over people where all count."""
    models = json.loads(PHOTOGRAPHS.read_text(encoding="utf-8"))["models"]
    names = ["geometry", "head pose alone", "gaze_nano_lstm", "internlstm_nano"]
    body = []
    for group, of_group in models[names[0]]["groups"].items():
        figures = [models[name]["groups"][group]["figures"] for name in names]
        if all(figures):  # too few looks otherwise
            cells = [f"{each['AUC']['value']:.3f}" + _interval(each["AUC"]) * (group == "all") for each in figures]
            body.append([group, str(of_group["faces"]), str(of_group["looking"]), *cells])
    head = ["faces", "number", "of them looking", *(name if " " in name else f"`{name}`" for name in names)]
    return tabulate(body, head, tablefmt="github", disable_numparse=True)


def thresholds_table() -> str:
    """What each model finds on photographs at its own threshold."""
    models = json.loads(PHOTOGRAPHS.read_text(encoding="utf-8"))["models"]
    body = []
    for name, model in models.items():
        if model["threshold"] is None:  # the angle of the head is no score
            continue
        figures = model["groups"]["all"]["figures"]
        found, false = (f"{100 * figures[key]['value']:.0f} %" for key in ("sensitivity", "false rate"))
        balanced = figures["balanced accuracy"]
        body.append(
            [f"`{name}`", str(model["threshold"]), found, false, f"{balanced['value']:.3f}{_interval(balanced)}"]
        )
    head = ["model", "threshold", "looks found", "false looks", "balanced accuracy"]
    return tabulate(body, head, tablefmt="github", disable_numparse=True)


def people_table() -> str:
    """What models find on labelled videos of real people: share scored, looks, false looks and AUC."""
    body = []
    for name, model in json.loads(PEOPLE.read_text(encoding="utf-8"))["models"].items():
        figures = model["groups"]["all"]["figures"]
        found, false = figures["sensitivity"], figures["false rate"]
        shares = [f"{100 * each['value']:.0f} %{_percent(each)}" for each in (found, false)]
        auc = figures["AUC"]
        body.append([f"`{name}`", f"{100 * model['scored']:.0f} %", *shares, f"{auc['value']:.3f}{_interval(auc)}"])
    head = ["model", "faces with a score", "looks found", "false looks", "AUC"]
    return tabulate(body, head, tablefmt="github", disable_numparse=True)


def _percent(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f" [{100 * low:.0f}, {100 * high:.0f}]"


def _interval(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f" [{low:.2f}, {high:.2f}]"


# Name of a mark -> what makes the text below it.
TABLES: dict[str, Callable[[], str]] = {
    "figures": figures_table,
    "faults": lambda: faults_table(read("faults")),
    "bad_input": lambda: bad_input_table(read("bad_input")),
    "soak": lambda: soak_table(read("soak")),
    "versions": lambda: versions_table(read("versions")),
    "gpu": lambda: gpu_table(read("gpu")) if (RECORDED / "gpu.json").exists() else "No GPU has been available yet.",
    "photographs": photographs_table,
    "thresholds": thresholds_table,
    "people": people_table,
}
