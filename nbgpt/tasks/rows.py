"""Tables that a user has: CSV, TSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from ..formats import FormatError

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
    rows = _json_lines(path, text) if kind == ".jsonl" else _delimited(path, text, _DELIMITERS[kind])
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


def _json_lines(path: Path, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}, line {number}: no JSON: {error}") from None
        if not isinstance(row, dict):
            raise FormatError(f"{path}, line {number}: {line.strip():.40} is no JSON object")
        rows.append(row)
    return rows


def column(rows: list[Row], name: str) -> list[Any]:
    """The values of a column. Raises ValueError if a row has none of this name."""
    for number, row in enumerate(rows, start=1):
        if name not in row:
            raise ValueError(f"row {number} has no column {name!r}; its columns are {', '.join(map(repr, row))}")
    return [row[name] for row in rows]
