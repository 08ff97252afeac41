"""A report in which every name is an attempted script injection, in a parser and in a browser."""

import copy
import dataclasses
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.page import render_page
from benchmarks.report.rows import ReportRow
from benchmarks.rows.schema import read_result, write_result
from tests.benchmarks.report.test_report import Page, browser, rows, runs, self_contained  # noqa: F401 - fixtures

# Each changes the page's title or fetches a file if it is not escaped.
PAYLOADS = (
    "<script>document.title='ran'</script>",
    "</style></script></title></textarea><script>document.title='ran'</script>",
    "'\"><img src=x onerror=\"document.title='ran'\">",
    '" onload="document.title=\'ran\'" x="',
    "' onmouseover='document.title=1' autofocus onfocus='document.title=2",
    "javascript:document.title='ran'//",
    "<svg onload=document.title='ran'>",
    "]]><script>document.title='ran'</script><!--",
    "--><script>document.title='ran'</script>",
    "<iframe srcdoc=\"<script>parent.document.title='ran'</script>\">",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}${7*7}",
    "&lt;script&gt;document.title='ran'&lt;/script&gt;",
    "<meta http-equiv=refresh content='0;url=javascript:document.title=1'>",
    "<a href=javascript:document.title='ran'>x</a>",
)
HOSTILE = " ".join(PAYLOADS)


def poisoned(value: Any) -> Any:
    """Replaces every text in a record except the checksums, which decide which files are read."""
    if isinstance(value, dict):
        return {key: each if key == "sha256" else poisoned(each) for key, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


def hostile_page(rows: list[ReportRow], root: Path, tmp_path: Path) -> str:  # noqa: F811
    made = []
    for row in rows:
        result: Any = poisoned(copy.deepcopy(row.result))
        for section in ("counts", "seconds", "fitted"):
            result[section][HOSTILE] = 1.0
        of_test = result["diagnosis"]["splits"]["test"]
        of_test["groups"][HOSTILE] = of_test["groups"]["face size"]
        of_test["calibration"][HOSTILE] = of_test["calibration"]["raw"]
        result["splits"]["test"]["views"][HOSTILE] = result["splits"]["test"]["metrics"]["mAP"]
        result["environment"]["packages"][HOSTILE] = HOSTILE
        result["dataset"]["splits"][HOSTILE] = result["dataset"]["splits"]["test"]
        result["counts"] = {name: int(count) for name, count in result["counts"].items()}
        write_result(tmp_path, result)
        frames = row.frames.assign(clip=HOSTILE, track=HOSTILE + row.frames["track"])
        made.append(dataclasses.replace(row, result=read_result(tmp_path / "result.json"), frames=frames))
    return render_page(made, root, False, lambda: None)


def test_no_name_becomes_a_tag(rows: list[ReportRow], lam_tree: Path, tmp_path: Path) -> None:  # noqa: F811
    text = hostile_page(rows, lam_tree, tmp_path)
    page = Page(text)
    self_contained(page, text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form", "textarea"), tag
        assert not [name for name in attributes if name.startswith("on") or name == "srcdoc"], attributes
        address = attributes.get("href") or attributes.get("src") or "#"
        assert address.startswith(("#", "data:image/")), address
    assert text.count("&lt;script&gt;document.title") > 20
    assert "{{ 7 * 7 }}" in text  # text is not rendered as a template


PROBE = """<body><iframe id="page" src="{page}" width="1280" height="900"></iframe><pre id="found"></pre>
<script>onload = async () => {{
  const page = document.getElementById("page").contentDocument;
  page.querySelectorAll("details").forEach(fold => fold.open = true);
  page.querySelectorAll("*").forEach(each => {{
    for (const event of ["mouseover", "focus", "click", "load", "error"]) each.dispatchEvent(new Event(event));
  }});
  await new Promise(done => setTimeout(done, 1500));
  document.getElementById("found").textContent = JSON.stringify({{
    title: page.title, scripts: page.scripts.length, frames: page.querySelectorAll("iframe").length,
    handlers: [...page.querySelectorAll("*")]
      .filter(each => each.getAttributeNames().some(name => name.startsWith("on"))).length,
    names: page.body.textContent.split("document.title").length,
    fetched: page.defaultView.performance.getEntriesByType("resource")
      .filter(each => !each.name.startsWith("data:")).length}});
}}</script>"""


@pytest.mark.slow
@pytest.mark.parametrize("policy", [True, False], ids=["as written", "without its policy"])
def test_no_script_of_a_name_runs_in_a_browser(
    rows: list[ReportRow],  # noqa: F811
    lam_tree: Path,
    tmp_path: Path,
    policy: bool,
) -> None:
    """Also without the content security policy: the names are escaped, not only blocked."""
    text = hostile_page(rows, lam_tree, tmp_path)
    if not policy:
        text, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        assert count == 1
    found = probed(tmp_path, text)
    title = re.search("<title>(.*?)</title>", text, re.DOTALL)
    assert title
    assert found["title"] != "ran" and "lamzoo report" in found["title"]
    assert (found["scripts"], found["frames"], found["handlers"], found["fetched"]) == (0, 0, 0, 0)
    assert found["names"] > 20


@pytest.mark.slow
def test_the_probe_detects_an_unescaped_name(tmp_path: Path) -> None:
    """On a page with an unescaped name the same probe reports that the script ran."""
    page = f"<!DOCTYPE html><html><head><title>lamzoo report</title></head><body><p>{HOSTILE}</p></body></html>"
    found = probed(tmp_path, page)
    assert found["title"] == "ran"
    assert found["scripts"] > 0 and found["handlers"] > 0


def probed(folder: Path, text: str) -> dict:
    page, wrapper = folder / "hostile.html", folder / "probe.html"
    page.write_text(text, encoding="utf-8")
    wrapper.write_text(PROBE.format(page=page.as_uri()))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    flags += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000"]
    done = subprocess.run(
        [browser(), *flags, wrapper.as_uri()], capture_output=True, text=True, timeout=300, check=False
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found and found[1], done.stderr
    import html

    return json.loads(html.unescape(found[1]))
