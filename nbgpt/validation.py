"""Checks of arguments at the edge of the API, and the error for files that fail theirs."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any


class FormatError(ValueError):
    """A damaged or unknown file; the message has the file, what was expected, what was found and the cure."""


def check(
    name: str,
    value: Any,
    kind: type | tuple[type, ...],
    holds: Callable[[Any], bool] = lambda value: True,
    allowed: str = "",
) -> None:
    """Check an argument.

    Args:
        name: of the parameter.
        value: of the argument.
        kind: the types that are allowed; Integral adds "a whole number" to the message.
        holds: a condition, asked only of a value of the right kind.
        allowed: says what is allowed, after "it must be".

    Raises:
        ValueError: names the parameter, its value and what is allowed.
    """
    if not (isinstance(value, kind) and holds(value)):
        raise ValueError(f"{name} is {value!r}; it must be {'a whole number ' * (kind is Integral)}{allowed}")
