"""The text on the screen: the model's words in colour, lines broken between words. A pipe gets the text as it is."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
import unicodedata
from collections.abc import Callable
from typing import Literal

from ..terminal import note, printable, shaded, write
from .manuscript import Span

Color = Literal["model", "probability", "off"]
_PART = re.compile(r"\n| +|[^ \n]+")
_COLUMNS = re.compile(r"(?: *\S+(?: \S+)* {2,})*")
"""The columns of a table before its last one: two spaces stand between them."""
_MODEL = "\x1b[36m{}\x1b[0m"  # cyan is legible on black and on white


class Display:
    """Writes spans to standard output as they come. A word is written when it is complete."""

    def __init__(self, is_terminal: bool, columns: Callable[[], int] | None = None) -> None:
        """columns: the width of the terminal, asked again for every word, since a window may change."""
        self.is_terminal = is_terminal
        self.columns = columns or (lambda: shutil.get_terminal_size().columns)
        self._column = 0
        self._space: list[tuple[str, str]] = []  # before the word: the text, and how it is painted
        self._word: list[tuple[str, str]] = []

    def add(self, span: Span, color: Color = "off") -> None:
        """Write a span."""
        if not self.is_terminal:
            return write(span.text)
        for part in _PART.findall(visible(span.text)):
            if part[0] in " \n" and self._word:
                self.flush()
            if part == "\n":
                self._break_line()
            else:
                (self._space if part[0] == " " else self._word).append((part, _painted(part, span, color)))
        return None

    def flush(self) -> None:
        """Write the word that may go on."""
        width = sum(_width(part) for part, _ in self._space + self._word)
        columns = self.columns()
        if self._column and self._column + width > columns:
            width -= sum(_width(part) for part, _ in self._space)
            self._break_line()
        write("".join(painted for _, painted in self._space + self._word))
        self._column += width
        if self._column > columns:  # a word longer than the line
            self._column %= columns
        self._space, self._word = [], []

    def end(self) -> None:
        """End the text with a whole line."""
        self.flush()
        if self._column or not self.is_terminal:
            self._break_line()

    def say(self, text: str) -> None:
        """Write the answer to a command. Lines that are too long for the terminal go on below their last column."""
        lines = text.rstrip("\n").split("\n")
        write("".join((self._broken(line) if self.is_terminal else line) + "\n" for line in lines))

    def note(self, text: str) -> None:
        """Write a message: to the terminal with its lines broken, or as a line to standard error."""
        if self.is_terminal:
            self.say(f"nbgpt: {printable(text)}")
        else:
            note(text)

    def _broken(self, line: str) -> str:
        heads = _COLUMNS.match(line)
        indent = " " * (len(heads[0]) if heads else 0)
        return textwrap.fill(visible(line), self.columns(), subsequent_indent=indent, break_on_hyphens=False)

    def _break_line(self) -> None:
        write("\n")
        self._column, self._space = 0, []


def default_color() -> Color:
    """The model's words in a colour of their own, unless the terminal has none, or NO_COLOR asks for none."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return "off" if is_plain else "model"


def visible(text: str) -> str:
    """Text without control characters, which may do anything to a terminal; tabs are spaces."""
    return "".join(c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs") else "�" for c in text.expandtabs(4))


def _painted(text: str, span: Span, color: Color) -> str:
    if not span.is_written or color == "off":
        return text
    if color == "probability" and span.probability is not None:
        return shaded(text, span.probability)
    return _MODEL.format(text)


def _width(text: str) -> int:
    """Columns that a terminal needs: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
