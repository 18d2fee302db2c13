"""Checks of arguments at the edge of the API."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any


def check(
    name: str,
    value: Any,
    kind: type | tuple[type, ...],
    holds: Callable[[Any], bool] = lambda value: True,
    allowed: str = "",
) -> None:
    """Raise ValueError that names the parameter, its value and what is allowed, if it does not hold."""
    if not (isinstance(value, kind) and holds(value)):
        raise ValueError(f"{name} is {value!r}; it must be {'a whole number ' * (kind is Integral)}{allowed}")
