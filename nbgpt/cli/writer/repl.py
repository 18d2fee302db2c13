"""The loop: each line is a command, or is added to the text, which the model continues."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from ..lines import LinesSkippedError
from ..terminal import decode
from .commands import named, pick
from .files import save
from .typed import writable_file
from .workspace import Workspace

STANDARD_OUTPUT = "standard output"


class Repl:
    """Carries out lines."""

    def __init__(self, workspace: Workspace, *, is_interactive: bool) -> None:
        """is_interactive: a person reads the messages; else they name the line, and the run fails in the end."""
        self.workspace, self._is_interactive = workspace, is_interactive

    def run(self, lines: Iterator[str]) -> None:
        """Carry out lines until they end or /quit.

        Raises LinesSkippedError in the end if no person reads the messages and some lines failed, OSError if standard
        output is closed.
        """
        if self._is_interactive:
            with _ends_are_exceptions():
                try:
                    self._carry_out(lines)
                finally:
                    self._keep_text()
            return
        n_failed, number = self._carry_out(lines)
        if n_failed:
            raise LinesSkippedError(f"{n_failed} of {number} lines failed")

    def _carry_out(self, lines: Iterator[str]) -> tuple[int, int]:
        """Numbers of the lines that failed and of all."""
        number = n_failed = 0
        for line in lines:
            number += 1
            if line.strip() in ("/quit", "/exit"):
                break
            n_failed += not self._succeeds(line, number)
        return n_failed, number

    def _succeeds(self, line: str, number: int) -> bool:
        """Carry out a line; False if it fails, which a message says: no mistake may lose the text."""
        try:
            self.take(line)
        except KeyboardInterrupt:
            if not self._is_interactive:
                raise
        except Exception as error:
            if isinstance(error, OSError) and error.filename == STANDARD_OUTPUT:
                raise
            self.workspace.display.note(("" if self._is_interactive else f"line {number}: ") + _message(error))
            return False
        return True

    def _keep_text(self) -> None:
        """Write a text that is in no file to one in the user's folder, and one that /new has ended to another."""
        workspace = self.workspace
        for name, text in (("unsaved.txt", workspace.text), ("unsaved-before.txt", workspace.left)):
            file = writable_file(name) if text not in ("", workspace.saved) else None
            if file and (name == "unsaved.txt" or text != workspace.text):
                with contextlib.suppress(OSError):
                    save(text, Path(file))
                    workspace.display.note(f"the text was not saved; until the next one, it is in {file}")

    def take(self, line: str) -> None:
        """Carry out a command, or add a line to the text and continue it. Raises ValueError if that is impossible."""
        line = decode(line.encode(errors="surrogateescape"), "the line")
        workspace = self.workspace
        if workspace.alternatives and line.strip().isdecimal():
            return pick(workspace, line.strip())
        if line.startswith("/") and not line.startswith("//"):
            name, _, value = line[1:].partition(" ")
            return named(name).run(workspace, value.strip())
        return workspace.add(line.removeprefix("/"))


@contextlib.contextmanager
def _ends_are_exceptions() -> Iterator[None]:
    """A terminal that is closed, and a request to end, raise SystemExit in the main thread, once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)  # the text is being kept
        raise SystemExit(128 + number)

    before = {one: signal.signal(one, end) for one in (signal.SIGHUP, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
