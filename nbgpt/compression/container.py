"""The compressed file: header, table of chunks, coded chunks, digest. Little-endian; docs/compression.md has a table."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from itertools import accumulate, pairwise

from ..formats import FormatError

MAGIC = b"\x89nbgpt\r\n"
VERSION = 1
_HEADER = struct.Struct(
    "<8sB8sIIQQIB"
)  # magic, version, fingerprint, window, overlap, n_bytes, n_tokens, n_chunks, name
_CHUNK = struct.Struct("<II")  # bytes of the coded chunk, CRC-32 of what it decodes to
_DIGEST = 8


@dataclass(frozen=True)
class Chunk:
    """A part of the text that can be read alone."""

    coded: bytes
    crc: int  # of its bytes, decoded


@dataclass(frozen=True)
class Container:
    """What a compressed file says."""

    model: str  # name, type of weights and cache, for messages
    fingerprint: bytes  # [8], see codec.py
    window: int
    overlap: int
    n_bytes: int  # of the original
    n_tokens: int
    chunks: list[Chunk]

    def to_bytes(self) -> bytes:
        """The file."""
        name = self.model.encode()[:255]
        numbers = self.fingerprint, self.window, self.overlap, self.n_bytes, self.n_tokens, len(self.chunks), len(name)
        table = b"".join(_CHUNK.pack(len(chunk.coded), chunk.crc) for chunk in self.chunks)
        coded = b"".join(chunk.coded for chunk in self.chunks)
        return _sealed(_HEADER.pack(MAGIC, VERSION, *numbers) + name + table + coded)

    @classmethod
    def from_bytes(cls, data: bytes) -> Container:
        """The inverse. Raises FormatError for other data, another version, and a file that is damaged or cut off."""
        if data[: len(MAGIC)] != MAGIC:
            raise FormatError(f"not a file that nbgpt has compressed: it begins with {data[: len(MAGIC)]!r}")
        if len(data) < _HEADER.size + _DIGEST or _sealed(data[:-_DIGEST]) != data:
            raise FormatError("the compressed file is damaged or cut off: its checksum is another")
        _, version, fingerprint, window, overlap, n_bytes, n_tokens, n_chunks, n_name = _HEADER.unpack_from(data)
        if version != VERSION:
            raise FormatError(f"the compressed file has version {version}; this nbgpt reads {VERSION}: install another")
        name_end = _HEADER.size + n_name
        table_end = name_end + n_chunks * _CHUNK.size
        end = len(data) - _DIGEST
        if (
            table_end > end
            or not 0 <= overlap < window
            or not n_chunks <= n_tokens <= n_bytes
            or n_bytes
            and not n_chunks
        ):
            raise FormatError("the compressed file contradicts itself: its header was not written by nbgpt")
        table = list(_CHUNK.iter_unpack(data[name_end:table_end]))
        ends = list(accumulate((size for size, _ in table), initial=table_end))
        if ends[-1] != end:
            raise FormatError("the compressed file contradicts itself: its chunks have other sizes than it says")
        coded = [data[start:stop] for start, stop in pairwise(ends)]
        parts = [Chunk(octets, crc) for octets, (_, crc) in zip(coded, table, strict=True)]
        model = data[_HEADER.size : name_end].decode(errors="replace")
        return cls(model, fingerprint, window, overlap, n_bytes, n_tokens, parts)


def _sealed(data: bytes) -> bytes:
    return data + hashlib.blake2b(data, digest_size=_DIGEST).digest()
