"""The compressed file: header, table of chunks, coded chunks, digest; docs/compression.md says what stands where."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from ..formats import FormatError
from .windows import chunk_spans

MAGIC = b"\x89nbgpt\r\n"
VERSION = 1
_HEADER = struct.Struct("<8sB8sIIQQIB")
"""Magic, version, identity, window, overlap, n_bytes, n_tokens, number of chunks, length of the model's name."""
_CHUNK = struct.Struct("<II")
"""Bytes of a coded chunk, CRC-32 of the bytes that it decodes to."""
_DIGEST = 8
_MAX_NAME = 255


@dataclass(frozen=True)
class Chunk:
    """A part of the text that can be decoded alone."""

    coded: bytes
    crc: int


@dataclass(frozen=True)
class Container:
    """What a compressed file says."""

    model: str  # its name and types, for messages
    identity: bytes  # of the model, [8]
    window: int
    overlap: int
    n_bytes: int  # of the original
    n_tokens: int
    chunks: list[Chunk]

    @cached_property
    def spans(self) -> list[slice]:
        """Which tokens are in each chunk."""
        return chunk_spans(self.n_tokens, len(self.chunks))

    def to_bytes(self) -> bytes:
        """The file."""
        name = self.model.encode(errors="replace")[:_MAX_NAME]
        sizes = self.n_bytes, self.n_tokens, len(self.chunks), len(name)
        header = _HEADER.pack(MAGIC, VERSION, self.identity, self.window, self.overlap, *sizes)
        table = [_CHUNK.pack(len(chunk.coded), chunk.crc) for chunk in self.chunks]
        return _sealed(b"".join([header, name, *table, *(chunk.coded for chunk in self.chunks)]))

    @classmethod
    def from_bytes(cls, data: bytes) -> Container:
        """The inverse. Raises FormatError for other data, another version, and a file that is damaged or cut off."""
        if data[: len(MAGIC)] != MAGIC:
            raise FormatError(f"no file that nbgpt has compressed: it begins with {data[: len(MAGIC)]!r}")
        if len(data) < _HEADER.size + _DIGEST or _sealed(data[:-_DIGEST]) != data:
            raise FormatError("the compressed file is damaged or cut off: its checksum is another")
        _, version, identity, window, overlap, n_bytes, n_tokens, n_chunks, n_name = _HEADER.unpack_from(data)
        if version != VERSION:
            raise FormatError(f"the compressed file has version {version}; this nbgpt reads {VERSION}: install another")
        table_start, end = _HEADER.size + n_name, len(data) - _DIGEST
        starts = table_start + n_chunks * _CHUNK.size
        is_cut = bool(n_chunks) == bool(n_tokens) and n_chunks <= n_tokens <= n_bytes
        if starts > end or overlap >= window or not is_cut:
            raise FormatError("the compressed file contradicts itself: nbgpt did not write its header")
        table = list(_CHUNK.iter_unpack(data[table_start:starts]))
        bounds = list(accumulate((size for size, _ in table), initial=starts))
        if bounds[-1] != end:
            raise FormatError("the compressed file contradicts itself: its chunks do not fill it")
        coded = [data[start:stop] for start, stop in pairwise(bounds)]
        chunks = [Chunk(octets, crc) for octets, (_, crc) in zip(coded, table, strict=True)]
        name = data[_HEADER.size : table_start].decode(errors="replace")
        return cls(name, identity, window, overlap, n_bytes, n_tokens, chunks)


def _sealed(data: bytes) -> bytes:
    return data + hashlib.blake2b(data, digest_size=_DIGEST).digest()
