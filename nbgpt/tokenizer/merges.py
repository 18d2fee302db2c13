"""The two files of GPT-2's kind of vocabulary: which id a spelling has, and which spellings are merged, in order.

They are text files, so each byte is spelled as a printable character.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..strict_json import LARGE_BYTES, read_object

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # bytes that are spelled as themselves
ALPHABET = [*_PRINTABLE, *sorted({*range(256)} - {*_PRINTABLE})]
"""All bytes, in the order of their ranks."""
SPELLING = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + i) for i, byte in enumerate(ALPHABET[188:])}
BYTE_OF = {spelling: byte for byte, spelling in SPELLING.items()}
CURE = "nbgpt reads GPT-2's kind of tokenizer, byte-level BPE as vocab.json and merges.txt"


def spelled_bytes(name: str) -> bytes:
    """The bytes of a token by its spelling; a name that is not spelled in bytes stands for itself."""
    try:
        return bytes(map(BYTE_OF.__getitem__, name))
    except KeyError:
        return name.encode(errors="replace")


def read_vocabulary(path: Path) -> dict[str, int]:
    """vocab.json: spelling -> id. Raises ValueError unless each id stands there once."""
    vocabulary = read_object(path, LARGE_BYTES)
    if any(type(i) is not int or i < 0 for i in vocabulary.values()):
        raise ValueError(f"{path}: not an object from tokens to ids; {CURE}")
    if len(set(vocabulary.values())) != len(vocabulary):
        raise ValueError(f"{path}: two tokens have one id; {CURE}")
    return vocabulary


def read_merges(merges: bytes | str) -> list[tuple[str, str]]:
    """merges.txt: pairs of spellings in their order. Lines end as on any system. Raises ValueError."""
    text = merges if isinstance(merges, str) else merges.decode()
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if text.startswith("#version"):
        text = text.partition("\n")[2]
    text = text.strip("\n")
    return as_pairs(text.split("\n") if text else [])


def as_pairs(lines: Iterable[Any]) -> list[tuple[str, str]]:
    """Merges as pairs, each given as one or as a line with a space. Raises ValueError."""
    pairs: list[Any] = [tuple(line.split(" ")) if isinstance(line, str) else tuple(line) for line in lines]
    if any(len(pair) != 2 or not all(isinstance(part, str) and part for part in pair) for pair in pairs):
        raise ValueError(f"merges: a line is not two tokens with a space between them; {CURE}")
    return pairs


def ranked_tokens(pairs: Sequence[tuple[str, str]]) -> list[bytes]:
    """The 256 single bytes and the merged tokens, in the order of their ranks. Raises ValueError for another kind."""
    try:
        merged = [bytes(map(BYTE_OF.__getitem__, left + right)) for left, right in pairs]
    except KeyError:
        raise ValueError(f"merges: a character stands for no byte; {CURE}") from None
    return [bytes([byte]) for byte in ALPHABET] + merged


def check_reachable(tokens: Sequence[bytes], pairs: Sequence[tuple[str, str]]) -> None:
    """Raise ValueError unless merging by rank makes every token out of the two parts that its merge names.

    tiktoken knows ranks, not pairs: it merges any two neighbours that are a token together. If every token, taken
    alone, comes from its own pair, no other pair that spells it can ever stand in a text, and the two ways agree.
    """
    ranks: Mapping[bytes, int] = {token: rank for rank, token in enumerate(tokens)}
    for rank, (spelled, _) in enumerate(pairs, start=256):
        token, left = tokens[rank], len(spelled)
        if ranks[token] != rank or _parts(token, rank, ranks) != [token[:left], token[left:]]:
            raise ValueError(f"merge {rank - 255} makes {token!r} in a way that ranks do not; {CURE}")


def _parts(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> list[bytes]:
    """What is left of a token's bytes when all pairs that rank before it have been merged, or the last two parts."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, at = min((ranks.get(a + b, rank), at) for at, (a, b) in enumerate(pairwise(parts)))
        if best >= rank:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def merges_of(tokens: Sequence[bytes]) -> str:
    """merges.txt of the tokens in the order of their ranks: the inverse of `read_merges` and `ranked_tokens`."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    parted = (_parts(token, rank, ranks) for rank, token in enumerate(tokens) if len(token) > 1)
    return "".join(["#version: 0.2\n", *(f"{' '.join(map(spelling, parts))}\n" for parts in parted)])


def spelling(token: bytes) -> str:
    """A token's bytes as printable characters: the inverse of `spelled_bytes`."""
    return "".join(map(SPELLING.__getitem__, token))
