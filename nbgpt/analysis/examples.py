"""Examples of benchmarks: reading their files, which people make, and encoding a context with its continuations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..formats import FormatError
from ..tasks.rows import json_lines
from ..tokenizer import Tokenizer
from .likelihood import Pair


@dataclass(frozen=True)
class Example:
    """A context, what may continue it, and which of that is right.

    A choice follows the context directly: a context that ends with a word has a space after it. Where texts are encoded
    together (`encode_pair`), the space becomes part of the choice's first token.
    """

    context: str
    choices: tuple[str, ...]
    label: int = 0


class Row:
    """An object of a JSONL file, whose fields are checked when they are asked for."""

    def __init__(self, fields: dict[str, Any], where: str) -> None:
        """where: the file and line, for messages."""
        self._fields = fields
        self.where = where

    def text(self, name: str) -> str:
        """A field that is a text, not empty. Raises FormatError."""
        value = self._field(name, wanted := "a text that is not empty")
        if not isinstance(value, str) or not value:
            raise self._wrong(name, value, wanted)
        return value

    def maybe_empty(self, name: str) -> str:
        """A field that is a text. Raises FormatError."""
        value = self._field(name, wanted := "a text")
        if not isinstance(value, str):
            raise self._wrong(name, value, wanted)
        return value

    def texts(self, name: str) -> list[str]:
        """A field that is a list of at least two texts with more than spaces. Raises FormatError."""
        value = self._field(name, wanted := "a list of at least two texts that are not empty")
        if not isinstance(value, list) or len(value) < 2:
            raise self._wrong(name, value, wanted)
        texts = [text for text in value if isinstance(text, str) and text.strip()]
        if len(texts) < len(value):
            raise self._wrong(name, value, wanted)
        return texts

    def label(self, name: str, n: int) -> int:
        """A field that is a whole number below n, which the hub's files write as a text. Raises FormatError."""
        value = self._field(name, wanted := f"the number of the right one, 0 to {n - 1}")
        if type(value) not in (int, str) or str(value) not in map(str, range(n)):
            raise self._wrong(name, value, wanted)
        return int(value)

    def _field(self, name: str, wanted: str) -> Any:
        if name not in self._fields:
            has = ", ".join(self._fields) or "no fields"
            raise FormatError(f"{self.where} has no {name!r}, but {has:.80}; wanted is {wanted}")
        return self._fields[name]

    def _wrong(self, name: str, value: object, wanted: str) -> FormatError:
        return FormatError(f"{self.where}: {name!r} is {value!r:.60}; wanted is {wanted}")


def rows(text: str, where: str) -> Iterator[Row]:
    """The objects of a JSONL file, a line each; empty lines are skipped.

    Args:
        text: of the file.
        where: its name, for messages.

    Raises:
        FormatError: a line is no JSON object, or there are none.
    """
    is_empty = True
    for place, fields in json_lines(text, where):
        is_empty = False
        yield Row(fields, place)
    if is_empty:
        raise FormatError(f"{where} has no lines; wanted is a JSON object a line")


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str, bos: bool | None = None) -> Pair:
    """Ids of a context and its continuation, as lm-evaluation-harness encodes them (`TemplateLM._encode_pair`).

    Whitespace at the end of the context is moved to the continuation; both are encoded together, and cut where the
    context alone would end. An empty context is the token that begins texts.

    Args:
        tokenizer: the model's tokenizer.
        context: the text before.
        continuation: the text whose likelihood is asked for.
        bos: begin with <|endoftext|>; None: as the model's file says.

    Returns:
        Both, without a check that the continuation has tokens of its own.

    Raises:
        ValueError: the context is empty and the model has no token that begins texts.
    """
    stripped = context.rstrip()
    before = tokenizer.encode_prompt(stripped, bos)
    if not stripped:
        return before, tokenizer.encode(context + continuation)
    return before, tokenizer.encode_prompt(context + continuation, bos)[len(before) :]


def encode_apart(tokenizer: Tokenizer, context: str, continuation: str, bos: bool | None = None) -> Pair:
    """Ids of a context and its continuation, each encoded alone as llm.c does; whitespace is moved as above."""
    stripped = context.rstrip()
    return tokenizer.encode_prompt(stripped, bos), tokenizer.encode(context[len(stripped) :] + continuation)
