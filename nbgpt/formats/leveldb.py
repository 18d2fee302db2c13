"""The LevelDB table, the file in which TensorFlow keeps the index of a checkpoint.

Source: leveldb/doc/table_format.md, and format_description.txt of Snappy for compressed blocks. A table is a row of
blocks and a footer; the footer points to the index block, whose values point to the data blocks in order.
"""

from __future__ import annotations

from collections.abc import Iterator

from .base import FormatError
from .crc32c import crc32c, unmask

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48  # bytes: the handles of two blocks, padding, the magic
_TRAILER = 5  # bytes behind a block: how it is compressed, masked CRC-32C
_BLOCK_LIMIT = 1 << 20  # bytes of a block; TensorFlow starts a new one after 256 KiB
_KEY_LIMIT = 4096  # bytes: a key is stored as its difference to the last, so a short file can claim long ones


def table_entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of a table in the order of their keys; raises FormatError, also while iterating."""
    if len(table) < _FOOTER or table[-len(_MAGIC) :] != _MAGIC:
        raise FormatError("not a LevelDB table, or its end is missing; download it again")
    footer = table[-_FOOTER:]
    at = 0
    for _ in range(2):  # the handle of the meta block, which holds nothing here, then that of the index block
        offset, at = varint(footer, at)
        size, at = varint(footer, at)
    last_end, last_key = 0, None
    for _, handle in _block_entries(_block(table, offset, size)):
        offset, at = varint(handle, 0)
        size, _ = varint(handle, at)
        if offset < last_end:
            raise FormatError(f"block at byte {offset} begins inside the one before it; download it again")
        last_end = offset + size
        for key, value in _block_entries(_block(table, offset, size)):
            if last_key is not None and key <= last_key:
                raise FormatError(f"key {key[:80]!r} is out of order; download it again")
            last_key = key
            yield key, value


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The base-128 number at a place, and the place behind it."""
    value = 0
    for i, octet in enumerate(data[at : at + 10]):
        value |= (octet & 0x7F) << 7 * i
        if octet < 0x80:
            return value, at + i + 1
    raise FormatError(f"number at byte {at} has no end; download it again")


def _block(table: bytes, offset: int, size: int) -> bytes:
    if offset + size + _TRAILER > len(table):
        raise FormatError(f"block at byte {offset} claims {size} bytes of {len(table)}; download it again")
    stored = table[offset : offset + size + 1]
    crc = unmask(int.from_bytes(table[offset + size + 1 : offset + size + _TRAILER], "little"))
    if crc32c(stored) != crc:
        raise FormatError(f"checksum of the block at byte {offset} is wrong; download it again")
    kind = stored[-1]
    if kind > 1:
        raise FormatError(f"block at byte {offset} has compression {kind}; expected 0 (none) or 1 (Snappy)")
    return snappy_decompress(stored[:-1]) if kind == 1 else stored[:-1]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    n_restarts = int.from_bytes(block[-4:], "little")  # places to start a binary search from: not needed here
    end = len(block) - 4 - 4 * n_restarts
    if end < 0:
        raise FormatError(f"block of {len(block)} bytes claims {n_restarts} restarts; download it again")
    at, key = 0, b""
    while at < end:
        n_shared, at = varint(block, at)
        n_own, at = varint(block, at)
        n_value, at = varint(block, at)
        if n_shared > len(key) or n_shared + n_own > _KEY_LIMIT or at + n_own + n_value > end:
            raise FormatError(f"entry before byte {at} of a block is longer than it can be; download it again")
        key = key[:n_shared] + block[at : at + n_own]
        at += n_own + n_value
        yield key, block[at - n_value : at]


def snappy_decompress(data: bytes) -> bytes:
    """Raw Snappy; raises FormatError before it allocates more than a block of this data can need."""
    length, at = varint(data, 0)
    if length > min(22 * len(data), _BLOCK_LIMIT):  # the most that is possible: 64 bytes from a copy of 3
        raise FormatError(f"Snappy block of {len(data)} bytes claims {length}; download it again")
    out = bytearray()
    while at < len(data) and len(out) < length:
        tag = data[at]
        width = (max(0, (tag >> 2) - 59), 1, 2, 4)[tag & 3]  # bytes of the number behind the tag
        number = int.from_bytes(data[at + 1 : at + 1 + width], "little")
        at += 1 + width
        if tag & 3 == 0:
            n = (number if width else tag >> 2) + 1
            out += data[at : at + n]
            at += n
        else:
            n, offset = 1 + (tag >> 2), number
            if tag & 3 == 1:
                n, offset = 4 + (tag >> 2 & 7), tag >> 5 << 8 | number
            if not 0 < offset <= len(out):
                raise FormatError(f"Snappy copy reaches {offset} bytes back, only {len(out)} are there")
            start = len(out) - offset
            repeated = out[start : start + n]  # a copy may run into what it writes: the piece repeats
            out += (repeated * (n // len(repeated) + 1))[:n]
    if at != len(data) or len(out) != length:
        raise FormatError(f"Snappy block ends after {len(out)} of {length} bytes; download it again")
    return bytes(out)
