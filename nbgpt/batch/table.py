"""Tables as streams of rows: JSON lines, CSV, TSV and Parquet, from any row on, never a whole file in memory."""

from __future__ import annotations

import base64
import csv
import math
import os
from collections.abc import Iterator, Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from ..formats import FormatError
from ..strict_json import SMALL_BYTES, parse_object
from .row import Row, row_of

_FORMATS = {
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".csv": "csv",
    ".tsv": "tsv",
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
FORMATS = tuple(dict.fromkeys(_FORMATS.values()))
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_PARQUET_ROWS = 256
"""Rows of a Parquet file that are in memory at a time; the file's own pages are, too."""


_LINE_BYTES = SMALL_BYTES
"""Of a line, and characters of a field: a longer one is not read into memory."""


class Position(NamedTuple):
    """Between two rows of the input: the number of the file, where in it, and how many lines are before."""

    file: int
    offset: int  # in bytes; of a Parquet file in rows
    line: int


START = Position(0, 0, 0)


class _Found(NamedTuple):
    line: int  # number of the row's first line, from 1
    columns: dict[str, Any] | str  # or what is wrong with it
    offset: int  # behind the row
    lines: int  # lines up to there


class Table:
    """The rows of some files, one file after the other."""

    def __init__(self, files: Sequence[Path], form: str | None = None, name: str = "") -> None:
        """Prepare to read.

        files: at least one. form: what they are; None: what their endings say. name: for messages, if not the file's.

        Raises FormatError for an unknown ending.
        """
        self.files, self._forms = [file.absolute() for file in files], [form or _format_of(file) for file in files]
        self.names = [name or _shown(file) for file in files]

    def stamps(self) -> list[tuple[int, int]]:
        """Of each file the size, and when it was last changed in nanoseconds. Raises OSError."""
        return [(found.st_size, found.st_mtime_ns) for found in map(os.stat, self.files)]

    def rows(self, position: Position = START, number: int = 0) -> Iterator[tuple[Row, Position]]:
        """The rows from a position on, the first of which has this number, each with the position behind it.

        Raises FormatError for a file that has no rows to find, and OSError.
        """
        first, offset, line = position
        for file in range(first, len(self.files)):
            name = self.names[file]
            for found in self._read(file, offset, line):
                yield row_of(number, name, found.line, found.columns), Position(file, found.offset, found.lines)
                number += 1
            offset = line = 0

    def _read(self, file: int, offset: int, line: int) -> Iterator[_Found]:
        path, name, form = self.files[file], self.names[file], self._forms[file]
        if form == "jsonl":
            return _json_lines(path, offset, line)
        if form == "parquet":
            return _parquet(path, name, offset)
        return _delimited(path, name, offset, line, _DELIMITERS[form])


def _shown(file: Path) -> str:
    """The name of a file as text, whatever its bytes are."""
    return os.fsencode(file).decode("utf-8", "replace")


def files_of(path: Path) -> list[Path]:
    """The file itself, or the tables of a folder and of those in it, by name.

    Raises FormatError if there are none, and OSError if nothing is there.
    """
    if not path.is_dir():
        path.stat()
        return [path]
    names = (file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in _FORMATS)
    files = [path / name for name in sorted(names) if not any(part.startswith((".", "_")) for part in name.parts)]
    if not files:
        raise FormatError(f"{path} has no file that ends in {', '.join(_FORMATS)}")
    return files


def _format_of(file: Path) -> str:
    try:
        return _FORMATS[file.suffix.lower()]
    except KeyError:
        endings = ", ".join(_FORMATS)
        raise FormatError(f"{file} has the ending {file.suffix!r}; this reads {endings}: --format says it") from None


def _json_lines(path: Path, offset: int, line: int) -> Iterator[_Found]:
    with path.open("rb") as file:
        file.seek(offset)
        while octets := file.readline(_LINE_BYTES + 1):
            columns = _parsed(octets) if octets.strip() else None
            offset, line = offset + len(octets), line + 1
            while len(octets) > _LINE_BYTES and not octets.endswith(b"\n"):  # the rest of the line
                octets = file.readline(_LINE_BYTES + 1)
                offset += len(octets)
            if columns is not None:
                yield _Found(line, columns, offset, line)


def _parsed(octets: bytes) -> dict[str, Any] | str:
    try:
        return parse_object(octets, "line")
    except FormatError as error:
        return str(error).removeprefix("line: ").removesuffix("; is the file complete?")


class _Lines:
    """The lines of a file as texts, and how far they have been read. Bytes that are not UTF-8 become surrogates."""

    def __init__(self, path: Path, name: str) -> None:
        self.file, self._name = path.open("rb"), name
        self.offset = self.number = 0

    def __iter__(self) -> Iterator[str]:
        while octets := self.file.readline(_LINE_BYTES + 1):
            self.offset, self.number = self.offset + len(octets), self.number + 1
            if len(octets) > _LINE_BYTES:
                raise FormatError(f"{self._name}, line {self.number}: a line of more than {_LINE_BYTES} bytes")
            yield octets.decode("utf-8", "surrogateescape")

    def seek(self, offset: int, number: int) -> None:
        """Go to a line that has this offset, with so many lines before it."""
        self.file.seek(offset)
        self.offset, self.number = offset, number


def _delimited(path: Path, name: str, offset: int, line: int, delimiter: str) -> Iterator[_Found]:
    csv.field_size_limit(_LINE_BYTES)
    lines = _Lines(path, name)
    with lines.file:
        names = _column_names(name, csv.reader(lines, delimiter=delimiter, strict=True))
        if offset:
            lines.seek(offset, line)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            first = lines.number + 1
            try:
                fields = next(reader, None)
            except csv.Error as error:
                if lines.number > first:  # what follows may be the rest of a field, and no row
                    place = f"{name}, lines {first} to {lines.number}"
                    raise FormatError(f"{place}: {error}; is a quote missing?") from None
                yield _Found(first, str(error), lines.offset, lines.number)
                continue
            if fields is None:
                return
            if fields:  # not an empty line
                same = len(fields) == len(names)
                wrong = f"{len(fields)} fields; the first line of the file has {len(names)}"
                columns = dict(zip(names, fields, strict=True)) if same else wrong
                yield _Found(first, columns, lines.offset, lines.number)


def _column_names(file: str, reader: Iterator[list[str]]) -> list[str]:
    try:
        names = next(reader, [])
    except csv.Error as error:
        raise FormatError(f"{file}, line 1: {error}") from None
    names[:1] = [names[0].removeprefix("\ufeff")] if names else []
    if not names or len(set(names)) < len(names):
        raise FormatError(f"{file}: its first line must name the columns, each once; it is {names!r:.200}")
    return names


def _parquet(path: Path, name: str, offset: int) -> Iterator[_Found]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ImportError('Parquet needs the package pyarrow: pip install "nbgpt[parquet]"') from None
    try:
        with parquet.ParquetFile(path) as file:
            start = 0
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                if offset < stop:
                    yield from _row_group(file, group, start, offset)
                start = stop
    except ArrowException as error:
        raise FormatError(f"{name}: {str(error).splitlines()[0]}") from None


def _row_group(file: Any, group: int, start: int, offset: int) -> Iterator[_Found]:
    """The rows of a group, whose first has the number `start`, from row `offset` on."""
    for batch in file.iter_batches(_PARQUET_ROWS, row_groups=[group]):
        skipped = min(max(0, offset - start), len(batch))
        for number, columns in enumerate(batch.slice(skipped).to_pylist(), start + skipped + 1):
            yield _Found(number, {name: as_json(value) for name, value in columns.items()}, number, number)
        start += len(batch)


def as_json(value: Any) -> Any:
    """A value of a Parquet file as JSON has it: dates by ISO 8601, decimals as texts, bytes in base64, NaN as null."""
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    if isinstance(value, dict):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
