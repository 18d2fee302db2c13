"""Tokens that stand beside a vocabulary's own: found in a text by their names, before it is cut into the others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class AddedToken:
    """A token that is one whole name; the fields are those of `tokenizers.AddedToken`."""

    id: int
    content: str
    special: bool = True  # a mark, not text: hidden when a text is decoded, read only when asked for
    lstrip: bool = False  # it takes the spaces before it along
    rstrip: bool = False  # and those after it
    single_word: bool = False  # no letter, digit or underscore may touch it


class Splitter:
    """Finds the names of added tokens in a text: the leftmost, and of those the longest."""

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self._tokens = {token.content: token for token in tokens if token.content}
        names = sorted(self._tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names))) if names else None

    def split(self, text: str) -> Iterator[str | int]:
        """The text between added tokens, never empty, and the ids of these."""
        start = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            token, (begin, end) = self._tokens[match[0]], match.span()
            if token.single_word and _touches_a_word(text, begin, end):
                continue
            if token.lstrip:
                begin = max(start, len(text[:begin].rstrip()))
            if token.rstrip:
                end = len(text) - len(text[end:].lstrip())
            if start < begin:
                yield text[start:begin]
            yield token.id
            start = max(start, end)
        if start < len(text):
            yield text[start:]


def _touches_a_word(text: str, begin: int, end: int) -> bool:
    return bool(re.match(r"\w", text[begin - 1 : begin]) or re.match(r"\w", text[end : end + 1]))
