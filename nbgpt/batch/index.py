"""A first pass over the input: how many rows there are, where the shards begin, and which rows are equal."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from ..formats import FormatError
from .row import Row, id_of, key_of
from .table import START, Position, Table

CHANGED = "the input has changed under the run: begin anew with --overwrite"
_NO_KEY = 0
"""In place of the hash of a row that has no key, and so no equals."""


@dataclass(frozen=True)
class Shard:
    """Rows that are answered together, and whose answers are one file."""

    number: int
    position: Position  # of its first row, or of one before it
    n_skipped: int  # rows between these two
    first_row: int
    n_rows: int
    repeats: dict[int, int] = field(default_factory=dict)  # by row: its number among equal rows, where that is not 0


@dataclass(frozen=True)
class Index:
    """What a first pass has found."""

    n_rows: int
    digest: str  # of all rows, in hexadecimal digits: equal for equal rows in the same order
    first: Row  # the first row that is one
    shard_rows: int
    positions: list[Position]  # of each shard
    repeated: np.ndarray  # int64 [n]: rows that are not the first of their kind, in ascending order
    repeats: np.ndarray  # int64 [n]: their numbers among equal rows

    def shards(self, rows: range) -> range:
        """The numbers of the shards that have some of these rows."""
        return range(rows.start // self.shard_rows, -(-rows.stop // self.shard_rows)) if rows else range(0)

    def shard(self, number: int, rows: range | None = None) -> Shard:
        """A shard by its number, with those of its rows that are among `rows`; None: all."""
        begin = number * self.shard_rows
        rows = range(self.n_rows) if rows is None else rows
        first, stop = max(begin, rows.start), min(begin + self.shard_rows, rows.stop)
        span = slice(*np.searchsorted(self.repeated, (first, stop)).tolist())
        repeats = dict(zip(self.repeated[span].tolist(), self.repeats[span].tolist(), strict=True))
        return Shard(number, self.positions[number], first - begin, first, stop - first, repeats)


def build(
    table: Table,
    shard_rows: int,
    id_column: Callable[[Row], str | None],
    progress: Callable[[int], object] = lambda n: None,
) -> Index:
    """Read all rows once. It keeps 8 bytes a row: a hash of its id, else of its content.

    Args:
        table: the input.
        shard_rows: rows of a shard; the last one may have fewer.
        id_column: is asked once, with the first row, which column holds ids; None: there are none.
        progress: called with the number of rows since the last call.

    Raises:
        FormatError: there are no rows.
        ValueError: two rows have the same id.
        OSError: a file cannot be read.
    """
    hashes, digest, first = array("Q"), hashlib.blake2b(digest_size=32), None
    positions, behind, column = list[Position](), START, None
    for row, position in table.rows():
        if row.number % shard_rows == 0:
            positions.append(behind)
        behind = position
        if first is None and not row.error:
            first, column = row, id_column(row)
        hashes.append(_hash(row, column))
        digest.update(b"%d " % len(row.content) + (row.content or row.error.encode(errors="replace")))
        progress(1)
    if first is None:
        raise FormatError(f"{table.names[0]}: none of its {len(hashes)} rows can be read" if hashes else _empty(table))
    repeated, repeats, before = _repetitions(np.frombuffer(hashes, np.uint64))
    index = Index(len(hashes), digest.hexdigest(), first, shard_rows, positions, repeated, repeats)
    if column is not None:
        _refuse_duplicates(table, index, column, before)
    return index


def _empty(table: Table) -> str:
    return f"{table.names[0]} has no rows"


def _hash(row: Row, id_column: str | None) -> int:
    with suppress(ValueError):  # its id is none, which is said when it is its turn
        if not row.error:
            octets = hashlib.blake2b(key_of(row, id_column), digest_size=8).digest()
            return max(1, int.from_bytes(octets, "little"))
    return _NO_KEY


def _repetitions(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that have an equal before them, the number of each among its equals, and the equal just before it."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    is_same = np.zeros(len(hashes), bool)
    is_same[1:] = (ordered[1:] == ordered[:-1]) & (ordered[1:] != _NO_KEY)
    places = np.flatnonzero(is_same)
    starts = np.flatnonzero(~is_same)
    repeats = places - starts[np.searchsorted(starts, places) - 1]
    by_row = np.argsort(order[places])
    return order[places][by_row], repeats[by_row], order[places - 1][by_row]


def _refuse_duplicates(table: Table, index: Index, column: str, before: np.ndarray) -> None:
    """Raise ValueError if two rows have the same id, and not only the same hash of it."""
    for later, earlier in zip(index.repeated.tolist(), before.tolist(), strict=True):
        rows = [_row(table, index, number) for number in (earlier, later)]
        if id_of(rows[0], column) == id_of(rows[1], column):
            raise ValueError(
                f"{rows[0].place} and {rows[1].place} have the same {column}, {id_of(rows[0], column)!r:.60}; "
                "the id of a row must be its own"
            )


def _row(table: Table, index: Index, number: int) -> Row:
    shard = index.shard(number // index.shard_rows)
    return next(row for row in rows_of(table, shard) if row.number == number)


def rows_of(table: Table, shard: Shard) -> Iterator[Row]:
    """The rows of a shard. Raises FormatError if they do not all come."""
    rows = (row for row, _ in table.rows(shard.position, shard.first_row - shard.n_skipped))
    number = shard.first_row - 1
    for row in islice(rows, shard.n_skipped, shard.n_skipped + shard.n_rows):
        number = row.number
        yield row
    if number < shard.first_row + shard.n_rows - 1:
        raise FormatError(f"{table.names[shard.position.file]}: {CHANGED}")
