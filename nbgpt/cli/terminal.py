"""Text in and out of a process: UTF-8, one line an error, and no control characters from strangers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def read_text(file: str) -> str:
    """The text in a file, or in standard input for -."""
    if file != "-":
        return decode(Path(file).read_bytes(), file)
    return decode(sys.stdin.buffer.read() if sys.stdin else b"", "standard input")


def decode(data: bytes, where: str) -> str:
    """UTF-8 to text. Raises FormatError that says where it came from."""
    from ..formats import FormatError

    try:
        return data.decode()
    except UnicodeDecodeError as error:
        found = f"byte {data[error.start]:#04x} at {error.start}"
        raise FormatError(f"{where} is not UTF-8 ({found}): convert it, for example with iconv") from None


def write(text: str) -> None:
    """To standard output, at once."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        error.filename = "standard output"
        raise


def write_pieces(pieces: Iterable[str]) -> None:
    """A text piece by piece as it comes; whatever ends it, the output ends with a whole line.

    An error before the first piece leaves the output as it was.
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


def give_up_output() -> None:
    """Let what standard output does not take go nowhere, so that the exit does not complain too."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """A line to standard error, if there is one."""
    with suppress(OSError, AttributeError):
        sys.stderr.write(f"nbgpt: {printable(text)}\n")


def printable(text: str) -> str:
    """The same in one line, without control characters, which a hostile file may have put there."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def shaded(text: str, probability: float) -> str:
    """The text on a background from red (0) by way of yellow (1/4) to green (1), in black; line ends stay plain.

    For those who ask by an option: NO_COLOR and what is no terminal do not hinder it, as no-color.org has it.
    """
    likely = probability**0.5
    if os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        red, green = min(1.0, 2 - 2 * likely), min(1.0, 2 * likely)
        color = f"2;{155 + round(100 * red)};{155 + round(100 * green)};155"
    else:
        color = f"5;{(217, 223, 229, 193, 157)[min(4, int(5 * likely))]}"
    start, end = f"\x1b[30;48;{color}m", "\x1b[0m"
    return "\n".join(f"{start}{line}{end}" if line else "" for line in text.split("\n"))
