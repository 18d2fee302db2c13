"""The only reader of JSON that strangers have written: it has limits of size, depth and number of values.

Python's own parser takes up to 30 bytes of memory for a byte of JSON, and as many frames as it is nested deep. The
limits are far above what files of models have, and are checked before anything is parsed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .paths import named
from .validation import FormatError

CONFIG_BYTES = 1 << 20
"""Of a config.json; a GPT-2's has a thousandth of it."""
SMALL_BYTES = 4 << 20
"""Of the index of a model's shards, and of what else lies beside the weights."""
LARGE_BYTES = 32 << 20
"""Of a vocabulary; a quarter of a million tokens take half of it."""
MAX_VALUES = 2_000_000
"""Numbers, texts, lists and objects of a document, keys not counted."""
MAX_DEPTH = 64
_BRACKETS = b"[]{}"
_NO_BRACKETS = bytes({*range(256)} - {*_BRACKETS})
_ALL_SQUARE = bytes.maketrans(b"{}", b"[]")


def read_object(path: Path, limit: int = SMALL_BYTES) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes. Raises FormatError, and OSError if it cannot be read."""
    with named(path), path.open("rb") as file:
        return parse_object(file.read(limit + 1), str(path), limit)


def parse_object(data: bytes | str, where: str, limit: int = SMALL_BYTES) -> dict[str, Any]:
    """`parse` of what must be an object."""
    value = parse(data, where, limit)
    if not isinstance(value, dict):
        raise FormatError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def parse(data: bytes | str, where: str, limit: int = SMALL_BYTES) -> Any:
    """A JSON value in UTF-8, whose objects have no key twice.

    Args:
        data: the document.
        where: what it is, for messages.
        limit: bytes that it may have.

    Raises:
        FormatError: begins with `where`: not JSON, or above a limit.
    """
    if isinstance(data, str):
        data = data.encode(errors="surrogatepass")
    if len(data) > limit:
        raise FormatError(f"{where}: JSON of more than {limit} bytes, which no model needs; nbgpt reads no more")
    _check_structure(data, where)
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_duplicates)
    except RecursionError:  # where the caller has left little of the stack
        raise FormatError(f"{where}: JSON nested too deep to be read here") from None
    except ValueError as error:
        raise FormatError(f"{where}: not valid JSON ({error}); is it complete?") from None


def _check_structure(data: bytes, where: str) -> None:
    """Check the number of values and the depth of what would be parsed. Raises FormatError."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH and len(data) <= MAX_VALUES:
        return
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if unescaped.count(b'"') <= 4 * MAX_VALUES:  # each value has two quotes, and its key two more
        structure = b"".join(unescaped.split(b'"')[::2])  # without texts
        if structure.count(b",") + structure.count(b"[") + structure.count(b"{") <= MAX_VALUES:
            if _depth_is_allowed(structure):
                return
            raise FormatError(f"{where}: JSON nested more than {MAX_DEPTH} deep, which no model needs")
    raise FormatError(f"{where}: JSON of more than {MAX_VALUES} values, which no model needs; nbgpt reads no more")


def _depth_is_allowed(structure: bytes) -> bool:
    """Take the innermost brackets away, level by level. What does not close is left to the parser, if it is shallow."""
    brackets = structure.translate(_ALL_SQUARE, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")
    return len(brackets) <= MAX_DEPTH and b"[]" not in brackets


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r:.80} stands there twice")
    return value
