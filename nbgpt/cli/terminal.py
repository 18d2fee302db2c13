"""Reading text and writing to standard output and standard error: UTF-8, without control characters from files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO


def read_text(file: str) -> str:
    """The text of a file; - is standard input."""
    if file != "-":
        return decode(Path(file).read_bytes(), file)
    return decode(sys.stdin.buffer.read() if sys.stdin else b"", "standard input")


def read_prompt(options: argparse.Namespace) -> str:
    """The words of the argument `prompt`, or --file, or standard input if it is no terminal; - is standard input."""
    prompt = " ".join(options.prompt) if options.prompt else None
    if prompt is not None and options.file is not None:
        raise ValueError("a prompt and --file are given; choose one")
    if prompt not in (None, "-"):
        return decode(prompt.encode(errors="surrogateescape"), "the prompt")
    file = prompt or options.file
    if file is None and (sys.stdin is None or sys.stdin.isatty()):
        return ""
    return read_text(file or "-").removesuffix("\n")


def line_batches(file: str, size: int = 64) -> Iterator[list[str]]:
    """The lines of a file, `size` at a time, without their line breaks (Unix or DOS); - is standard input."""
    lines = read_text(file).replace("\r\n", "\n").split("\n")
    if not lines[-1]:  # after the end of the last line
        lines.pop()
    for start in range(0, len(lines), size):
        yield lines[start : start + size]


def decode(data: bytes, where: str) -> str:
    """Decode UTF-8. `where` names the source in the message of the FormatError that other bytes raise."""
    from ..formats import FormatError

    try:
        return data.decode()
    except UnicodeDecodeError as error:
        found = f"byte {data[error.start]:#04x} at {error.start}"
        raise FormatError(f"{where} is not UTF-8 ({found}): convert it, for example with iconv") from None


def write(text: str) -> None:
    """Write to standard output and flush."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        error.filename = "standard output"
        raise


def write_pieces(pieces: Iterable[str]) -> None:
    """Write each piece as it comes; even after an error the output ends with a line break.

    An error before the first piece writes nothing.
    """
    rest = iter(pieces)
    last = next(rest, "")
    try:
        write(last)
        for last in rest:
            write(last)
    finally:
        if not last.endswith("\n"):
            write("\n")


def is_terminal(stream: TextIO | None) -> bool:
    """Is a standard stream a terminal, and not a pipe, a file or closed?"""
    return stream is not None and stream.isatty()


def dimmed(text: str) -> str:
    """The text in a fainter colour, for a terminal."""
    return f"\x1b[2m{text}\x1b[0m" if text else ""


def give_up_output() -> None:
    """If standard output is broken, redirect it to nowhere: Python's flush at exit would report the error again."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """Write a line "nbgpt: ..." to standard error, if the process has one."""
    with suppress(OSError, AttributeError):
        sys.stderr.write(f"nbgpt: {printable(text)}\n")


def printable(text: str) -> str:
    """The text as one line without control characters, which a hostile file may contain."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def shaded(text: str, probability: float) -> str:
    """The text in black on a background from red (probability 0) over yellow (1/4) to green (1).

    Line breaks are not coloured. NO_COLOR is ignored, as no-color.org recommends for an option that asks for colour.
    """
    likely = probability**0.5
    if os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        red, green = min(1.0, 2 - 2 * likely), min(1.0, 2 * likely)
        color = f"2;{155 + round(100 * red)};{155 + round(100 * green)};155"
    else:
        color = f"5;{(217, 223, 229, 193, 157)[min(4, int(5 * likely))]}"
    start, end = f"\x1b[30;48;{color}m", "\x1b[0m"
    return "\n".join(f"{start}{line}{end}" if line else "" for line in text.split("\n"))
