"""The text of a writer and a model: who wrote which part of it, and what stands between the parts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

End = Literal["length", "sentence", "paragraph"]

_NO_SPACE_AFTER = re.compile(r"""[\s(\[{“‘«„/—–-]$|(?:^|[\s(\[{])["']$""")
"""Text that needs no space before a word: a space, an opening bracket or quotation mark, a dash."""
_BEGINS_WORD = re.compile(r"""\w|[(\[{“«„—–]|["'‘](?=\w)""")
_CLITIC = re.compile(r"['’](?:s|t|d|m|re|ve|ll)\b", re.IGNORECASE)
"""The rest of a contraction, such as the 's of "it's"."""


@dataclass(frozen=True)
class Span:
    """A part of the text that one of the two wrote."""

    text: str
    is_written: bool = False  # by the model
    probability: float | None = None  # the model's, of this text after all before it; None: not asked for


@dataclass(frozen=True)
class Turn:
    """The model's continuation at the end of a text, and what it takes to write it again."""

    n_given: int  # spans of the text that it continues
    seed: int
    end: End | None  # where it was to end; None: where the settings say


@dataclass(frozen=True)
class Manuscript:
    """A text. It never changes: what adds to it returns another one."""

    spans: tuple[Span, ...] = ()
    turn: Turn | None = None  # None: the text does not end with a continuation

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(span.text for span in self.spans)

    def typed(self, words: str, spaced: bool = True) -> Manuscript:
        """The text with words that were typed.

        spaced: put a space before them where it is missing, and leave out those at their end: GPT-2's words begin with
        the space before them, so after "time " it looks for a word that begins with a second space.
        """
        if spaced:
            words = words.rstrip(" \t")
            words = " " * needs_space(self.text[-2:], words) + words
        return Manuscript((*self.spans, Span(words))) if words else Manuscript(self.spans)

    def written(self, spans: list[Span], seed: int, end: End | None = None) -> Manuscript:
        """The text with the model's continuation."""
        return Manuscript((*self.spans, *_joined(spans)), Turn(len(self.spans), seed, end))

    def before_turn(self) -> Manuscript:
        """The text that the last continuation continues. Raises ValueError if the text does not end with one."""
        if not self.turn:
            raise ValueError("there is nothing to write again: the text does not end with the model's words")
        return Manuscript(self.spans[: self.turn.n_given])

    def replaced(self, text: str) -> Manuscript:
        """Another text; what it shares with this one at the beginning and the end is still by whom it was."""
        old = self.text
        head = _n_common(old, text)
        tail = _n_common(old[head:][::-1], text[head:][::-1])
        middle = Span(text[head : len(text) - tail])
        spans = (*cut(self.spans, 0, head), middle, *cut(self.spans, len(old) - tail, len(old)))
        return Manuscript(tuple(span for span in spans if span.text))


def needs_space(before: str, after: str) -> bool:
    """Is a space missing between the end of a text and what follows it?"""
    if not before or not _BEGINS_WORD.match(after) or _NO_SPACE_AFTER.search(before) or _CLITIC.match(after):
        return False
    return "W" not in map(unicodedata.east_asian_width, (before[-1], after[0]))  # Chinese has no spaces


def _n_common(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    different = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(different, min(len(one), len(other)))


def cut(spans: Sequence[Span], start: int, stop: int) -> list[Span]:
    """The spans of the characters from start to stop. A span that is cut has no probability any more."""
    found, at = [], 0
    for span in spans:
        part = span.text[max(0, start - at) : max(0, stop - at)]
        at += len(span.text)
        if part:
            found.append(span if part == span.text else Span(part, span.is_written))
    return found


def _joined(spans: list[Span]) -> list[Span]:
    """One span for all, if they have no probabilities of their own."""
    if any(span.probability is not None for span in spans):
        return spans
    text = "".join(span.text for span in spans)
    return [Span(text, is_written=True)] if text else []
