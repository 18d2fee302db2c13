"""Subcommands that answer each line of a file: one bad line does not end the run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from .terminal import line_batches, note

_Answer = TypeVar("_Answer")


class LinesSkippedError(Exception):
    """The run is complete but for some lines."""


def add_errors(command: argparse._ActionsContainer) -> None:
    """Add --errors."""
    command.add_argument(
        "--errors",
        choices=("skip", "stop"),
        default="skip",
        help="what to do with a line that cannot be answered, such as one longer than the context: skip it, name it "
        "and exit with 3 at the end, or stop at once; default: %(default)s",
    )


def answered(
    options: argparse.Namespace, ask: Callable[[list[str]], Iterable[_Answer]]
) -> Iterator[tuple[str, _Answer]]:
    """Each line of the file `options.file` with its answer; `ask` answers several at a time.

    Raises ValueError for a line that cannot be answered, or with --errors skip LinesSkippedError at the end.
    """
    ask([])  # raises what is wrong with the call, and not with a line
    number = n_skipped = 0
    for lines in line_batches(options.file):
        for line, answer in zip(lines, _answers(lines, ask), strict=True):
            number += 1
            if not isinstance(answer, ValueError):
                yield line, answer
            elif options.errors == "stop":
                raise ValueError(f"line {number}: {answer}")
            else:
                n_skipped += 1
                note(f"line {number} is left out: {answer}")
    if n_skipped:
        raise LinesSkippedError(f"{n_skipped} of {number} lines were left out")


def _answers(lines: list[str], ask: Callable[[list[str]], Iterable[_Answer]]) -> Iterator[_Answer | ValueError]:
    """The answers, or the error of a line. All lines are asked about together unless there is one."""
    try:
        yield from ask(lines)
    except ValueError:
        for line in lines:
            try:
                yield from ask([line])
            except ValueError as error:
                yield error
