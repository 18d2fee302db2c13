"""Reads JSON of untrusted files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .base import FormatError

_LIMIT = 64 << 20  # bytes; the index of a model in hundreds of shards is below one MiB


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises FormatError, and OSError if the file cannot be read."""
    size = path.stat().st_size
    if size > _LIMIT:
        raise FormatError(f"{path}: {size} bytes are too many for a model's JSON; nbgpt reads up to {_LIMIT}")
    return parse_object(path.read_bytes(), str(path))


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object in UTF-8 without a key twice. Raises FormatError that begins with `where`."""
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise FormatError(f"{where}: JSON nested too deep") from None
    except ValueError as error:
        raise FormatError(f"{where}: not valid JSON ({error}); is the file complete?") from None
    if not isinstance(value, dict):
        raise FormatError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in value if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return value
