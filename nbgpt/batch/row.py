"""A row of the input: its columns, where it stands, and the seed that belongs to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False)
_SEED_BITS = 53
"""A seed is a whole number that every reader of JSON holds exactly."""


class ColumnError(ValueError):
    """A row has not the columns that the job needs."""


@dataclass(frozen=True)
class Row:
    """A row, or what stands in its place and is none."""

    number: int  # in the whole input, from 0
    file: str
    line: int  # from 1; of a Parquet file the row
    columns: dict[str, Any] = field(default_factory=dict)
    error: str = ""  # why it is no row; "" if it is one
    content: bytes = b""  # its columns as JSON with sorted keys: equal for equal rows of whatever format

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.file}, line {self.line}"


def row_of(number: int, file: str, line: int, columns: dict[str, Any] | str) -> Row:
    """A row of these columns; a text instead of columns says why it is none."""
    if isinstance(columns, str):
        return Row(number, file, line, error=columns)
    try:
        content = _CANONICAL.encode(columns).encode()
    except UnicodeEncodeError:
        return Row(number, file, line, error="a text is not UTF-8: convert the file, for example with iconv")
    except (ValueError, TypeError, RecursionError) as error:
        return Row(number, file, line, error=f"JSON cannot hold it: {error}")
    return Row(number, file, line, columns, content=content)


def named(columns: Iterable[str]) -> str:
    """Names of columns, for messages."""
    return ", ".join(map(repr, columns)) or "none"


def id_of(row: Row, column: str) -> str:
    """The row's id. Raises ColumnError if it is missing, ValueError if it is neither a text nor a whole number."""
    if column not in row.columns:
        raise ColumnError(f"there is no column {column!r}: there are {named(row.columns)}")
    value = row.columns[column]
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"its id, column {column!r}, is {value!r:.60}; it must be a text or a whole number")
    return str(value)


def key_of(row: Row, id_column: str | None) -> bytes:
    """What tells a row from the others: its id, else its content. Raises ValueError as `id_of`."""
    return b"id " + id_of(row, id_column).encode() if id_column is not None else b"row " + row.content


def seed_of(run_seed: int, key: bytes, repeat: int) -> int:
    """The seed of a row, from 0 to 2**53 - 1.

    Args:
        run_seed: of the run.
        key: of the row.
        repeat: number of the row among those of the same key, from 0.
    """
    digest = hashlib.blake2b(b"%d %d " % (run_seed, repeat) + key, digest_size=8).digest()
    return int.from_bytes(digest, "little") >> (64 - _SEED_BITS)


def answer_id(seed: int) -> str:
    """The name of a row's answer in OpenAI's format: as much a function of the row as its seed."""
    return hashlib.blake2b(b"answer %d" % seed, digest_size=16).hexdigest()
