"""What targets share: the list of them, and files in memory, right where a mutation would not leave them right."""

from __future__ import annotations

import functools
import json
import re
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from math import prod
from operator import index
from pathlib import Path

SEEDS = Path(__file__).parent / "seeds"
DOCUMENTED = (ValueError,)  # FormatError is one
TARGETS: dict[str, Callable[[bytes], object]] = {}
STRICT: set[str] = set()
_ITEM_BYTES = {"U8": 1, "F16": 2, "BF16": 2, "F32": 4, "I32": 4, "F64": 8}
_MOST = 1 << 18
"""Bytes of the tensors that are made for a header."""


def target(function: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Register a target under its name: a reader, which may refuse its input as it documents."""
    TARGETS[function.__name__] = function
    return function


def strict_target(function: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Register a target that must raise nothing; what it calls may refuse only where it says so itself."""
    STRICT.add(function.__name__)
    return target(function)


def run(name: str, data: bytes) -> None:
    """One input. Raises what the target does not document."""
    with suppress(*(() if name in STRICT else DOCUMENTED)):
        TARGETS[name](data)


@functools.cache
def scratch() -> Path:
    """A folder of this process, in memory where there is such a one."""
    memory = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(prefix="nbgpt-fuzz-", dir=memory if memory.is_dir() else None)
    scratch.folder = folder  # it is removed with the process
    return Path(folder.name)


def file_of(data: bytes, name: str) -> Path:
    path = scratch() / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def parts_of(data: bytes, n: int) -> list[bytes]:
    """The n parts of an input, between zero bytes; those that are missing are empty."""
    return [*data.split(b"\0", n - 1), *[b""] * n][:n]


def json_or(data: bytes, default: object) -> object:
    """The JSON in a part of an input, or something else if it is none."""
    with suppress(ValueError, RecursionError):
        return json.loads(data)
    return default


def with_tensors(data: bytes) -> bytes:
    """A safetensors file of its header, whose tensors lie one behind the other and are zeros.

    What follows the header behind a zero byte is the end of the last tensor.
    """
    header, end = parts_of(data, 2)
    size, fields = 0, json_or(header, None)
    with suppress(KeyError, TypeError, AttributeError, OverflowError):
        for name, entry in fields.items():
            if name != "__metadata__":
                start, size = size, size + prod(map(index, entry["shape"])) * _ITEM_BYTES[entry["dtype"]]
                entry["data_offsets"] = [start, size]
        header = json.dumps(fields).encode()
    header += b" " * (-(8 + len(header)) % 64)
    zeros = max(0, size - len(end)) if isinstance(size, int) and size <= _MOST else 0
    return len(header).to_bytes(8, "little") + header + bytes(zeros) + end


def header_of(file: bytes) -> bytes:
    """The inverse, but for what the tensors hold."""
    size = int.from_bytes(file[:8], "little")
    return re.sub(rb', "data_offsets": \[\d+, \d+\]', b"", file[8 : 8 + size]).rstrip()


def archive_of(pickled: bytes) -> bytes:
    """What torch.save writes of something pickled, with a storage of 64 numbers."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {"data.pkl": pickled, "byteorder": b"little", "data/0": bytes(256)}.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()
