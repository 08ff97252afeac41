"""The cited figures: complete, in percent, and told apart."""

import csv
from pathlib import Path

ROWS = list(csv.DictReader((Path(__file__).parents[3] / "benchmarks" / "published.csv").open(encoding="utf-8")))


def test_rows_are_well_formed():
    assert [*ROWS[0]][:6] == ["method", "split", "metric", "value", "year", "source"]
    for row in ROWS:
        assert row["split"] in ("val", "test") and row["metric"] in ("mAP", "accuracy") and row["source"]
        assert 50 < float(row["value"]) < 100 and (not row["year"] or 2021 <= int(row["year"]) <= 2025)
    keys = [(row["method"], row["split"], row["metric"]) for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_the_published_table():
    cited = {row["method"]: row["value"] for row in ROWS if (row["split"], row["metric"]) == ("test", "mAP")}
    table = {"GazePose": "76.29", "InternLSTM": "76.57", "InternLSTM*": "76.94", "InternLSTM**": "77.18"}
    assert table.items() <= cited.items()
