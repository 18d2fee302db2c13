"""Prompts made of a row's columns: "Summarize: {text}", or a Jinja template."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

from ..tasks.templates import TextTemplate
from .row import ColumnError, named

DEFAULT_COLUMNS = ("prompt", "text")
"""Columns of which one is the prompt if nothing else is said."""

Columns = Mapping[str, Any]
MakePrompt = Callable[[Columns], str]
"""The prompt of a row. Raises ValueError if it cannot be made."""


def prompt_maker(fields: str | None, jinja: str | None) -> MakePrompt:
    """How prompts are made.

    Args:
        fields: a text in which {column} stands for the value of a column, and {{ and }} for braces.
        jinja: the source of a Jinja template, in which columns are variables.

    Returns:
        A function of a row's columns; without fields and jinja, the first of `DEFAULT_COLUMNS` that the row has.

    Raises:
        ValueError: both are given, or one of them is no template.
        ImportError: Jinja is wanted and not installed.
    """
    if fields is not None and jinja is not None:
        raise ValueError("--prompt and --template are given; choose one")
    if jinja is not None:
        return _with_jinja(jinja)
    return _column if fields is None else _with_fields(fields)


def _with_jinja(source: str) -> MakePrompt:
    template = TextTemplate(source, "the template")
    has_self = re.search(r"\bself\b", source)

    def fill(columns: Columns) -> str:
        if has_self and "self" in columns:
            raise ColumnError("in a Jinja template `self` is the template: give the column 'self' another name")
        try:
            return template.render(columns)
        except ValueError as error:
            raise ColumnError(str(error)) from None

    return fill


def _column(columns: Columns) -> str:
    """The value of the column that is the prompt unless something else is said."""
    for name in DEFAULT_COLUMNS:
        if name in columns:
            if not isinstance(columns[name], str):
                raise ValueError(f"column {name!r} is {columns[name]!r:.60}; it must be a text")
            return str(columns[name])
    wanted = " nor ".join(map(repr, DEFAULT_COLUMNS))
    raise ColumnError(f"there is no column {wanted}, and no --prompt that names another: there are {named(columns)}")


def _with_fields(source: str) -> MakePrompt:
    """What fills a text with the columns that its fields name."""
    try:
        parts = [_part(*part) for part in Formatter().parse(source)]
    except ValueError as error:
        raise ValueError(f"--prompt is {source!r:.80}: {error}; write {{{{ and }}}} for braces") from None

    def fill(columns: Columns) -> str:
        return "".join(text + ("" if name is None else _shown(columns, name)) for text, name in parts)

    return fill


def _part(text: str, name: str | None, form: str | None, conversion: str | None) -> tuple[str, str | None]:
    """A text, and the column that follows it. Raises ValueError for a field that is more than a name."""
    if form or conversion or name == "":
        raise ValueError("a field has the name of a column and nothing else")
    return text, name


def _shown(columns: Columns, name: str) -> str:
    """The value of a column as part of a text: numbers and lists as JSON has them."""
    if name not in columns:
        raise ColumnError(f"there is no column {name!r}: there are {named(columns)}")
    value = columns[name]
    if value is None:
        raise ValueError(f"column {name!r} is null; a prompt needs a value")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
