"""Texts in files, and in the writer's own editor."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...partial import whole_file
from ..terminal import decode, is_terminal, note
from .typed import writable_file

_LARGEST = 16 * 2**20
"""Bytes of a text at most: far beyond what a model sees."""
_EDITORS = ("nano", "vi")


def save(text: str, path: Path) -> None:
    """Write a text and a line break to a file, all of it or nothing. Raises OSError."""
    with whole_file(path) as file:
        file.write(f"{text}\n".encode(errors="replace"))


def load(path: Path) -> str:
    """The text of a file, without the line break at its end.

    Raises FormatError if it is not UTF-8, ValueError if it is no text, OSError if it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError(
            f"{path} is {'a folder' if path.is_dir() else 'no regular file'}; the name of a text is wanted"
        )
    if path.exists() and path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size >> 20} MiB; a text may have {_LARGEST >> 20} MiB")
    text = decode(path.read_bytes(), str(path))
    if "\0" in text:
        raise ValueError(f"{path} is no text: it has zero bytes")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n")


def edit(text: str) -> str:
    """The text as the writer's editor leaves it. Raises ValueError if there is none, or if it fails."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise ValueError("an editor needs a terminal, and this is none")
    command = editor()
    with tempfile.TemporaryDirectory(prefix="nbgpt-") as folder:
        path = Path(folder) / "text.txt"
        save(text, path)
        with _heedless_of_interrupts():
            try:
                code = subprocess.run([*command, str(path)], check=False).returncode
            except OSError as error:
                raise ValueError(f"the editor {command[0]}: {error.strerror}; set EDITOR to another one") from None
        if code:
            raise ValueError(f"the editor {command[0]} ended with {code}; the text is as it was")
        try:
            return load(path)
        except ValueError as error:
            raise type(error)(f"{error}{_kept(path)}") from None


def _kept(path: Path) -> str:
    """Copy what the editor has left to the user's folder -> words that say where it is."""
    kept = writable_file("edited.txt")
    if kept is None:
        return ""
    try:
        shutil.copyfile(path, kept)
    except OSError:
        return ""
    return f"; until the next time, what the editor left is in {kept}"


def editor() -> list[str]:
    """The command of $VISUAL, else $EDITOR, else nano or vi, whichever is there. Raises ValueError if none is."""
    for name in ("VISUAL", "EDITOR"):
        if os.environ.get(name, "").strip():
            try:
                return shlex.split(os.environ[name])
            except ValueError as error:
                raise ValueError(f"{name} is {os.environ[name]!r}: {error}") from None
    for name in _EDITORS:
        if shutil.which(name):
            note(f"EDITOR is not set; {name} is taken")
            return [name]
    raise ValueError(f"EDITOR is not set, and neither {' nor '.join(_EDITORS)} is there: export EDITOR=...")


@contextlib.contextmanager
def _heedless_of_interrupts() -> Iterator[None]:
    """Leave Ctrl-C to the editor."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
