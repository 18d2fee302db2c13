"""The safetensors format: a length, a JSON header, and the numbers.

Source: https://github.com/huggingface/safetensors, section "Format". As there, the tensors must cover the bytes after
the header without a gap or an overlap.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..partial import whole_file
from ..strict_json import parse_object
from .base import FormatError
from .stored import Stored, open_weights

_HEADER_LIMIT = 8 << 20  # bytes; gpt2-xl takes a hundredth, the format allows 100 MB, which parsed take 2.5 GB
_MAX_DIMS = 8
_BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64},
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8},
    **{"F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "BF16": 16, "F16": 16, "F32": 32, "F64": 64, "C64": 64},
}


class Entry(NamedTuple):
    """Where a tensor lies: the bytes from `start` to `stop`, counted from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors of a safetensors file in the order in which they lie, and its metadata.

    Raises FormatError unless each tensor's bytes fit its dtype and shape and all of them fill the file exactly.
    """
    with open_weights(path) as (file, size):
        n_header = int.from_bytes(file.read(8), "little")
        if size < 8 or n_header > size - 8:
            raise FormatError(
                f"{path}: claims a header of {n_header} bytes and has {size} in all; "
                "it is cut short or no safetensors file: fetch it again"
            )
        if n_header > _HEADER_LIMIT:
            raise FormatError(f"{path}: header of {n_header} bytes; nbgpt reads up to {_HEADER_LIMIT}")
        header = parse_object(file.read(n_header), f"{path}: header", _HEADER_LIMIT)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{path}: __metadata__ must map strings to strings")
    entries = [(name, _entry(entry, 8 + n_header, f"{path}: {name}")) for name, entry in header.items()]
    entries.sort(key=lambda item: item[1][2:])
    end = 8 + n_header
    for name, entry in entries:
        if entry.start != end:
            raise FormatError(f"{path}: {name} begins at byte {entry.start}; expected {end}, where the one before ends")
        end = entry.stop
    if end != size:
        raise FormatError(f"{path}: tensors end at byte {end}, the file at {size}; cut short? fetch it again")
    return dict(entries), metadata


def _entry(entry: Any, data_start: int, where: str) -> Entry:
    """One tensor's line of the header, with its bytes counted from the beginning of the file."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise FormatError(f"{where}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise FormatError(f"{where}: dtype {dtype!r:.40} is none that safetensors defines")
    if not _is_sizes(shape) or len(shape) > _MAX_DIMS:
        raise FormatError(f"{where}: shape {shape!r:.80} is not a list of at most {_MAX_DIMS} sizes")
    if not _is_sizes(offsets) or len(offsets) != 2:
        raise FormatError(f"{where}: data_offsets {offsets!r:.80} are not two numbers of bytes")
    begin, end = offsets
    if (end - begin) * 8 != prod(shape) * _BITS[dtype]:
        raise FormatError(f"{where}: {dtype} {shape} does not take the {end - begin} bytes it is given")
    return Entry(dtype, tuple(shape), data_start + begin, data_start + end)


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def read_tensors(path: Path) -> dict[str, Stored]:
    """The tensors of one file under its own names. Raises FormatError."""
    entries, _ = read_header(path)
    return {name: Stored(path, name, entry.dtype, entry.shape, entry.start) for name, entry in entries.items()}


@contextlib.contextmanager
def create(
    path: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> Iterator[BinaryIO]:
    """A safetensors file, open for the bytes of its tensors: name -> (dtype, shape), in the order of the file.

    Whole or not there, as `whole_file` has it.
    """
    with whole_file(path) as file:
        file.write(_header(shapes, metadata))
        yield file


def _header(shapes: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON; spaces make it end at a multiple of 64, so that a tensor begins at one if the others allow."""
    header: dict[str, object] = {"__metadata__": metadata}
    stop = 0
    for name, (dtype, shape) in shapes.items():
        start, stop = stop, stop + prod(shape) * _BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text
