"""Tables, beside what was written into them."""

import csv
import json

import pytest

from nbgpt.formats import FormatError
from nbgpt.tasks.rows import column, read_rows

ROWS = [{"text": 'He said "no", and\nleft', "label": "a"}, {"text": "naïve 😀", "label": ""}]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_delimited(tmp_path, suffix):
    file = tmp_path / f"rows{suffix}"
    with file.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.DictWriter(out, ["text", "label"], delimiter={".csv": ",", ".tsv": "\t"}[suffix])
        writer.writeheader()
        writer.writerows(ROWS)
    assert read_rows(file) == ROWS


def test_json_lines(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    assert read_rows(file) == ROWS


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"text,label\none\n", "line 2: not as many fields as the first line has, 2"),
        ("a.csv", b"text,label\none,b,c\n", "line 2: not as many fields"),
        ("a.csv", b'text,label\n"one,b\n', "unexpected end of data"),
        ("a.csv", b"text,label\n", "has no rows"),
        ("a.csv", b"", "has no rows"),
        ("a.tsv", b"text\n\xff\n", "is not UTF-8"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2: not valid JSON"),
        ("a.jsonl", b"[1]\n", "line 1: expected a JSON object, found list"),
        ("a.jsonl", b"[" * 100_000, "line 1: JSON nested more than 64 deep"),
        ("a.txt", b"", "this reads .csv, .tsv and .jsonl"),
    ],
)
def test_no_table(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FormatError, match=message):
        read_rows(tmp_path / name)


def test_columns():
    assert column(ROWS, "label") == ["a", ""]
    with pytest.raises(ValueError, match="row 1 has no column 'lable'; its columns are 'text', 'label'"):
        column(ROWS, "lable")
