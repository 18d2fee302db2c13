"""Tables that a user has: CSV, TSV or JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..formats import FormatError
from ..strict_json import LARGE_BYTES, parse_object

Row = dict[str, Any]
"""Values by the name of their column."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a table, by its ending: .csv and .tsv, whose first line names the columns, or .jsonl.

    Raises FormatError for a file that is no table, naming the line, and OSError if it cannot be read.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (*_DELIMITERS, ".jsonl"):
        raise FormatError(f"{path} has the ending {kind!r}; this reads .csv, .tsv and .jsonl")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 (at byte {error.start}): convert it, for example with iconv") from None
    rows = (
        [row for _, row in json_lines(text, str(path))]
        if kind == ".jsonl"
        else _delimited(path, text, _DELIMITERS[kind])
    )
    if not rows:
        raise FormatError(f"{path} has no rows")
    return rows


def _delimited(path: Path, text: str, delimiter: str) -> list[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                n = len(reader.fieldnames or ())
                raise FormatError(f"{path}, line {reader.line_num}: not as many fields as the first line has, {n}")
            rows.append(dict(row))
    except csv.Error as error:
        raise FormatError(f"{path}, line {reader.line_num}: {error}") from None
    return rows


def json_lines(text: str, where: str) -> Iterator[tuple[str, Row]]:
    """The objects of JSON lines, each with its place for messages. Empty lines are skipped.

    Raises FormatError, which begins with the file's name `where`, for a line that is no JSON object.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{where}, line {number}"
            yield place, parse_object(line.encode(errors="replace"), place, LARGE_BYTES)


def column(rows: list[Row], name: str) -> list[Any]:
    """The values of a column. Raises ValueError if a row has none of this name."""
    for number, row in enumerate(rows, start=1):
        if name not in row:
            raise ValueError(f"row {number} has no column {name!r}; its columns are {', '.join(map(repr, row))}")
    return [row[name] for row in rows]
