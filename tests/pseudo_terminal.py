"""A command at the other end of a real pseudo-terminal; what it writes is shown on a screen that pyte emulates."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

import pyte


class _Screen(pyte.Screen):
    """A screen that answers when it is asked where the cursor is, as terminals do."""

    def write_process_input(self, data):
        os.write(self.end, data.encode())


class Terminal:
    """Use it with `with`: the process is killed at the end if it still runs."""

    def __init__(self, *arguments, columns=80, lines=50, **environment):
        """Start `python -m nbgpt` with these arguments and variables; None takes a variable away."""
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path]), "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "COLORTERM", "VISUAL", "EDITOR"):
            variables.pop(name, None)
        variables = {name: str(value) for name, value in (variables | environment).items() if value is not None}
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            time.sleep(0.05)  # until the window has its size
            os.execve(sys.executable, [sys.executable, "-m", "nbgpt", *map(str, arguments)], variables)
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen = _Screen(columns, lines)
        self.screen.end = self.end
        self._stream = pyte.ByteStream(self.screen)

    @property
    def text(self):
        """What is on the screen, without the spaces at the ends of lines and the empty lines at its end."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip("\n")

    def color_of(self, words):
        """The colours of the letters of words that stand in one line of the screen: (foreground, background) each."""
        row = next(number for number, line in enumerate(self.screen.display) if words in line)
        start = self.screen.display[row].index(words)
        cells = [self.screen.buffer[row][column] for column in range(start, start + len(words))]
        return {(cell.fg, cell.bg) for cell in cells if cell.data != " "}

    def until(self, condition, seconds=120):
        """Wait for a text to be on the screen, or for a condition."""
        holds = condition if callable(condition) else lambda: condition in self.text
        deadline = time.monotonic() + seconds
        while not holds():
            is_alive = self._read(0.1)
            if holds():
                break
            assert is_alive, f"{condition!r} did not come, and the process has gone; the screen has:\n{self.text}"
            assert time.monotonic() < deadline, f"{condition!r} did not come; the screen has:\n{self.text}"

    def ready(self):
        """Wait for the prompt, with nothing typed yet."""
        self.until(self._is_ready)

    def _is_ready(self):
        cursor = self.screen.cursor
        return cursor.x == 2 and self.screen.display[cursor.y].rstrip() == ">"

    def type(self, keys):
        """Press keys."""
        os.write(self.end, keys.encode())

    def enter(self, line):
        """Type a line at the prompt, and wait for the next prompt."""
        self.ready()
        self.type(line)
        if line:
            self.until(lambda: self.screen.cursor.x > 2 or self.screen.display[self.screen.cursor.y][0] != ">")
        self.type("\r")
        self.until(lambda: not self._is_ready())
        self.ready()

    def interrupt_line(self):
        """Ctrl-C at the prompt, again if it is lost, as it can be while readline handles the key before it."""
        deadline = time.monotonic() + 120
        while not self._is_ready():
            assert time.monotonic() < deadline, f"Ctrl-C does not end the line; the screen has:\n{self.text}"
            self.type("\x03")
            with contextlib.suppress(AssertionError):
                self.until(self._is_ready, seconds=3)

    def leave(self):
        """Ctrl-D, again if it is lost, as keys can be while readline begins a line -> the exit code."""
        deadline = time.monotonic() + 120
        self.type("\x04")
        while self._read(1):
            assert time.monotonic() < deadline, f"the process does not end; the screen has:\n{self.text}"
            with contextlib.suppress(OSError):  # it has just gone
                self.type("\x04")
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def _read(self, seconds):
        """Take what the process writes; False if it has gone."""
        if select.select([self.end], [], [], seconds)[0]:
            try:
                data = os.read(self.end, 65536)
            except OSError:  # Linux: no process is at the other end
                return False
            self._stream.feed(data)
            return bool(data)
        return True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.end)
