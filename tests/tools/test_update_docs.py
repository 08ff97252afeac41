"""The sweep over backbones and heads, from the files of a run to the table in the documents."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tools import update_docs
from tools.update_docs import crossed_table, update_crossed


def rows(of_backbones: dict[str, float], of_heads: dict[str, float], both: float = 0.0) -> list[dict]:
    """Cells that are sums of their line and their column, and of `both` where both are the first."""
    found = []
    for number, (backbone, first) in enumerate(of_backbones.items()):
        for place, (head, second) in enumerate(of_heads.items()):
            value = first + second + both * (number == place == 0)
            figures = {"mAP": value, "std": 0.01, "low": value - 0.02, "high": value + 0.02, "seeds": 5}
            found.append(
                {"backbone": backbone, "head": head, "row": f"a+{backbone}+{head}", "split": "test", **figures}
            )
    return found


def table_of(cells: list[dict]) -> str:
    return crossed_table({"commits": ["0123456789"], "date": "2026-01-02T03:04:05", "rows": cells})


def test_the_variance_is_split_between_backbones_and_heads() -> None:
    text = table_of(rows({"one": 0.5, "two": 0.7}, {"lstm": 0.0, "probe": 0.1}))
    lines = text.splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == ["backbone \\ head", "lstm", "probe", "mean"]
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "one", "50.00 ± 1.00 (48.0 to 52.0)", "60.00 ± 1.00 (58.0 to 62.0)", "55.00",
    ]  # fmt: skip
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == ["mean", "60.00", "70.00", "65.00"]
    assert "80 % lies between backbones, 20 % between heads, and 0 % in neither alone" in text
    assert "5 seeds" in text and "Measured on 2026-01-02 at 0123456." in text


def test_what_neither_explains_is_left_over() -> None:
    text = table_of(rows({"one": 0.5, "two": 0.5}, {"lstm": 0.0, "probe": 0.0}, both=0.4))
    assert "33 % lies between backbones, 33 % between heads, and 33 % in neither alone" in text


def test_a_sweep_is_recorded_with_its_commits_and_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_docs, "CROSSED", tmp_path / "record.json")
    monkeypatch.setattr(update_docs, "CROSSED_PICTURE", tmp_path / "picture.png")
    cells = rows({"one": 0.5, "two": 0.7}, {"lstm": 0.0})
    results = {
        "a+one+lstm": {"environment": {"code": {"commit": "b" * 40}}, "date": "2026-01-01"},
        "a+two+lstm": {"environment": {"code": {"commit": "a" * 40}}, "date": "2026-01-03"},
    }
    monkeypatch.setattr(update_docs, "read_result", lambda path: results[path.parent.name])
    out = tmp_path / "runs"
    other, own = out / "sweeps" / "synthlam" / "other", out / "sweeps" / "synthlam" / "own"
    for folder, table in ((other, pd.DataFrame({"head": ["lstm"], "mAP": [0.1]})), (own, pd.DataFrame(cells))):
        folder.mkdir(parents=True)
        table.to_csv(folder / "table.csv", index=False)
        (folder / "heatmap.svg").write_bytes(folder.name.encode())
    update_crossed(out)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record == {"commits": ["a" * 40, "b" * 40], "date": "2026-01-03", "rows": cells}
    assert (tmp_path / "picture.png").read_bytes() == b"own"


def test_a_record_of_predict_gets_a_line_on_speed_and_memory() -> None:
    facts = {"frames": 1800, "processor_ms_per_frame": [90.4, 41.6], "minutes": [1.0, 5.0], "megabytes": [1011, 1012]}
    record = {"name": "video_geometry", "plain_seconds": 180.0, "seconds": 60.0, "facts": facts}
    (line,) = update_docs.video_lines([record, {"facts": {}}])
    assert "10.0 frames per second by the baseline, 30.0 by ours; processor time per frame 90 ms and 42 ms" in line
    assert line.endswith("our peak memory 1,011 MB in 1 minutes of video, 1,012 MB in 5 minutes of video.")
