import csv
import datetime
import io
import json
import os
import pickle
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from nbgpt.batch import table
from nbgpt.batch.table import Table, files_of
from nbgpt.formats import FormatError

CSV = 'name,"said, then"\r\nAnn,"two\nlines ""quoted"""\n\nBob,plain\nÉva,\n'


def found(table, *args):
    return [row for row, _ in table.rows(*args)]


def check_every_position(table):
    """Reading from behind any row finds the rest."""
    whole = list(table.rows())
    for number, (_, behind) in enumerate(whole, start=1):
        assert list(table.rows(behind, number)) == whole[number:]


def test_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": "x\xc3\xa9"}\r\n\n  \n{"a": [1, {"b": null}]}\n{"a": 3}')
    rows = found(Table([path]))
    assert [(row.number, row.line, row.columns) for row in rows] == [
        (0, 1, {"a": "xé"}),
        (1, 4, {"a": [1, {"b": None}]}),
        (2, 5, {"a": 3}),
    ]
    check_every_position(Table([path]))


@pytest.mark.parametrize("line", ['{"a": 1', "7", "[]", '{"a": 1, "a": 2}', '{"a": "\\ud800"}', '{"a": NaN}', "x" * 99])
def test_a_bad_line_is_one_bad_row(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": 0}}\n{line}\n{{"a": 2}}\n')
    rows = found(Table([path]))
    assert [bool(row.error) for row in rows] == [False, True, False]
    assert rows[1].place == f"{path}, line 2"
    assert "\n" not in rows[1].error


def test_bytes_that_are_not_utf8(tmp_path):
    for name, data in (("a.jsonl", b'{"a": 0}\n{"a": "\xff"}\n{"a": 2}\n'), ("a.csv", b"a\n0\n\xff\n2\n")):
        (tmp_path / name).write_bytes(data)
        assert [bool(row.error) for row in found(Table([tmp_path / name]))] == [False, True, False]


def test_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + CSV.encode())
    rows = found(Table([path]))
    assert [row.columns for row in rows] == list(csv.DictReader(io.StringIO(CSV, newline="")))
    assert [row.line for row in rows] == [2, 5, 6]
    check_every_position(Table([path]))
    (tmp_path / "a.tsv").write_text("a\tb\n1,5\t2\n")
    assert found(Table([tmp_path / "a.tsv"]))[0].columns == {"a": "1,5", "b": "2"}


def test_bad_rows_of_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1\n1,2,3\n"x"y,2\n1,2\n"open,3\n')
    rows = found(Table([path]))
    assert [bool(row.error) for row in rows] == [True, True, True, False, True]
    assert rows[0].error == "1 fields; the first line of the file has 2"
    for text in ("", "a,a\n1,2\n"):
        path.write_text(text)
        with pytest.raises(FormatError, match="must name the columns, each once"):
            found(Table([path]))


def test_a_field_of_csv_may_be_as_long_as_a_text_of_json(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"a,b\n{'x' * 200_000},1\n")
    assert len(found(Table([path]))[0].columns["a"]) == 200_000


def test_an_error_inside_a_record_of_several_lines_ends_the_reading(tmp_path):
    """What follows could be the rest of a text as well as rows."""
    path = tmp_path / "a.csv"
    for text in ('a,b\n1,"two\nlines"x,3\n4,5\n', 'a,b\n1,"open\n4,5\n'):
        path.write_text(text)
        with pytest.raises(FormatError, match=r"a\.csv, lines 2 to 3: .*; is a quote missing\?"):
            found(Table([path]))


def test_giant_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_LINE_BYTES", 50)
    path = tmp_path / "a.jsonl"
    for giant in ("x" * 51, "x" * 52, "x" * 230, " " * 230):
        path.write_text(f'{{"a": 0}}\n{giant}\n{{"a": 2}}\n{giant}')
        rows = found(Table([path]))
        assert [(row.number, row.line, bool(row.error)) for row in rows] in (
            [(0, 1, False), (1, 2, True), (2, 3, False), (3, 4, True)],
            [(0, 1, False), (1, 3, False)],
        )
        check_every_position(Table([path]))
    (tmp_path / "a.csv").write_text(f"a\n1\n{'x' * 60}\n")
    with pytest.raises(FormatError, match=r"a\.csv, line 3: a line of more than 50 bytes"):
        found(Table([tmp_path / "a.csv"]))


def test_names_are_those_that_were_given_wherever_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / os.fsdecode(b"a\xff.jsonl")
    path.write_text('{"a": 0}\n')
    monkeypatch.chdir(tmp_path)
    read = pickle.dumps(Table([Path(path.name)]))
    monkeypatch.chdir("/")
    (row,) = found(pickle.loads(read))
    assert (row.file, row.columns) == ("a\ufffd.jsonl", {"a": 0})


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    rows = [{"n": n, "text": f"é {n}", "x": float("nan") if n == 3 else n / 2} for n in range(700)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=300)
    table = Table([path])
    expected = [{**row, "x": None if row["n"] == 3 else row["x"]} for row in rows]
    whole = list(table.rows())
    assert [row.columns for row, _ in whole] == expected
    assert [row.line for row, _ in whole] == list(range(1, 701))
    for number in (1, 255, 256, 299, 300, 301, 699, 700):
        assert list(table.rows(whole[number - 1][1], number)) == whole[number:]


def test_types_of_parquet_that_json_has_not(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    row = {
        "day": datetime.date(2024, 2, 29),
        "price": Decimal("1.50"),
        "data": b"\x00\xff",
        "list": [1.5, float("nan")],
    }
    parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    (read,) = found(Table([path]))
    assert read.columns == {"day": "2024-02-29", "price": "1.50", "data": "AP8=", "list": [1.5, None]}
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(FormatError, match=r"a\.parquet: .+"):
        found(Table([path]))


def test_without_pyarrow(monkeypatch, tmp_path):
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "nbgpt\[parquet\]"'):
        found(Table([tmp_path / "a.parquet"]))


def test_folder(tmp_path):
    for name, text in {
        "b.jsonl": '{"a": 1}\n',
        "deep/a.csv": "a\n2\n",
        "a.jsonl": '{"a": 0}\n',
        "notes.txt": "no table",
        "_temporary/x.jsonl": "{}",
        ".hidden.jsonl": "{}",
        "empty.jsonl": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    whole = Table(files_of(tmp_path))
    rows = found(whole)
    assert [(row.number, str(row.columns["a"])) for row in rows] == [(0, "0"), (1, "1"), (2, "2")]
    check_every_position(whole)


def test_no_table(tmp_path):
    (tmp_path / "a.txt").write_text(json.dumps({"a": 1}))
    with pytest.raises(FormatError, match=r"a\.txt has the ending '\.txt'; this reads .*\.jsonl.*--format says it"):
        Table([tmp_path / "a.txt"])
    assert len(found(Table([tmp_path / "a.txt"], "jsonl"))) == 1
    with pytest.raises(FormatError, match="has no file that ends in"):
        files_of(tmp_path)
    with pytest.raises(FileNotFoundError):
        files_of(tmp_path / "nothing")
