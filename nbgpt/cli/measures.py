"""What the subcommands of `eval` share: figures with their standard errors, as text and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .terminal import write

if TYPE_CHECKING:
    import argparse

    from ..analysis.estimate import Estimate


def add_json(command: argparse._ActionsContainer) -> None:
    """Add --json."""
    command.add_argument("--json", action="store_true", help="one object with all figures, unrounded")


def write_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Write names and values as two columns."""
    lines = list(lines)
    width = max(15, *(len(name) for name, _ in lines))
    write("".join(f"{name:{width}} {value}\n" for name, value in lines))


def write_json(fields: Mapping[str, Any]) -> None:
    """Write an object on a line of its own; numbers that JSON does not have become null."""
    write(json.dumps(plain(fields), ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """The value with estimates as objects, and null for nan and infinity."""
    from ..analysis.estimate import Estimate

    if isinstance(value, Estimate):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(estimate: Estimate, digits: int = 4, scale: float = 1, unit: str = "") -> str:
    """The value and its standard error, multiplied by a scale."""
    return f"{scale * estimate.value:.{digits}f} +/- {scale * estimate.standard_error:.{digits}f}{unit}"
