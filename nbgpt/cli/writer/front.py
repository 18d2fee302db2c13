"""Where lines come from: a terminal with prompt_toolkit, one with readline, or a pipe, which gets no prompts."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ..terminal import decode, is_terminal, write
from .typed import MORE, PROMPT, Complete, writable_file


@dataclass(frozen=True)
class Front:
    """Lines, and what is known about whoever types them."""

    lines: Iterator[str]
    is_interactive: bool
    keeps_typed: bool = True  # what was typed stays on the screen


def open_front(complete: Complete, *, keeps_typed: bool) -> Front:
    """The best front that there is. keeps_typed: text that was typed stays on the screen; else only if it must."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        return Front(_whole_lines(_piped_lines()), is_interactive=False)
    if os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        with contextlib.suppress(ImportError):  # prompt_toolkit is an extra
            from .prompt import prompted_lines

            return Front(prompted_lines(complete, keeps_typed), is_interactive=True, keeps_typed=keeps_typed)
    return Front(_readline_lines(complete), is_interactive=True)


def _piped_lines() -> Iterator[str]:
    """Lines of standard input as they come. Raises FormatError for what is not UTF-8."""
    for number, line in enumerate(sys.stdin.buffer if sys.stdin else (), 1):
        yield decode(line, f"line {number} of standard input").removesuffix("\n").removesuffix("\r")


def _whole_lines(lines: Iterator[str]) -> Iterator[str]:
    """Lines, those joined that a backslash continues."""
    parts: list[str] = []
    for line in lines:
        if line.endswith("\\"):
            parts.append(line[:-1])
        else:
            yield "\n".join([*parts, line])
            parts = []
    if parts:
        yield "\n".join(parts)


def _readline_lines(complete: Complete) -> Iterator[str]:
    """Lines from the terminal, with Tab and a history if the system has readline."""
    with _readline(complete):
        parts: list[str] = []
        while True:
            try:
                line = input(MORE if parts else PROMPT)
            except EOFError:
                write("\n")
                return
            except KeyboardInterrupt:
                write("\n")
                parts = []
                continue
            if line.endswith("\\"):
                parts.append(line[:-1])
                continue
            yield "\n".join([*parts, line])
            parts = []


@contextlib.contextmanager
def _readline(complete: Complete) -> Iterator[None]:
    """Tab and the arrow keys. The history is a file in the user's folder, if it can be written."""
    try:
        import readline
    except ImportError:
        yield
        return

    def candidate(word: str, number: int) -> str | None:
        found = complete(readline.get_line_buffer()[: readline.get_endidx()])[1]
        return found[number].text if number < len(found) else None

    readline.set_completer_delims(" ")
    readline.set_completer(candidate)
    readline.parse_and_bind("tab: complete")
    file = writable_file("history")
    if file:
        with contextlib.suppress(OSError):
            readline.read_history_file(file)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        readline.set_completer(None)
        if file:
            with contextlib.suppress(OSError):
                readline.write_history_file(file)
