"""CSV files with a header: every row has a field per column, or its line is named."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data.csv_fields import read_csv

TEXT = {"dtype": str, "keep_default_na": False}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b\n1,2,3\n", "line 2 has 3 fields instead of 2"),
        (b"a,b\n1,2\n1\n", "line 3 has 1 field instead of 2"),
        (b"a,b\n1\n1,2,3\n", "line 2 has 1 field instead of 2"),
        (b"\na,b\n\n1,2,\n", "line 4 has 3 fields instead of 2"),
        (b'a,b\n1,"x\ny"\n"3,4"\n', "line 4 has 1 field instead of 2"),
        (b'a,b\n"1,2\n', "line 2 has 1 field instead of 2"),
        (b"a,b,a\n1,2,3\n", "the header names a twice"),
        (b"a,b\n\xff,2\n", "codec can't decode byte 0xff"),
        (b"", "No columns to parse"),
    ],
)
def test_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_csv(data, **TEXT)


def test_line_ends_marks_and_blank_lines() -> None:
    for data in (b"a,b\r\n1,2\r\n", b"a,b\r1,2", b"\xef\xbb\xbfa,b\n\n \n1,2\n\n", b'"a","b"\n"1",2\n'):
        assert read_csv(data, **TEXT).to_dict("list") == {"a": ["1"], "b": ["2"]}
    assert read_csv(b"a\n1\n\n2\n", **TEXT)["a"].tolist() == ["1", "2"]


FIELD = st.text(st.sampled_from('ab ,"\n'), max_size=4)


@given(st.lists(st.lists(FIELD, min_size=1, max_size=4), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_rows_are_read_as_they_were_written_or_refused(rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([["a", "b", "c"], *rows])
    data = text.getvalue().encode()
    if all(len(row) == 3 for row in rows):
        assert read_csv(data, **TEXT).to_numpy().tolist() == rows
    elif any(len(row) > 1 or row[0].strip() for row in rows if len(row) != 3):
        with pytest.raises(ValueError, match="instead of 3"):
            read_csv(data, **TEXT)
