"""The conversation of `repl`: each line that is typed is added to the text, and the model continues it."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ..model import Model
from ..paths import home
from ..text.options import OPTIONS, check_names
from .terminal import note, write

HELP = """\
Type text and the model continues it; the next line you type continues that. A space at its beginning counts, and
so does every line: end one with \\ to go on in the next. An empty line lets the model go on.
  /set NAME VALUE  change an option of generate: /set temperature 0.7, /set stop ["."], /set seed None
  /set             show what is set
  /undo            take back the last line and what the model made of it
  /again           let the model write the last continuation anew
  /text            show the whole text
  /new             begin another text
  /help            this page
  /quit            leave; so does Ctrl-D. Ctrl-C stops the model, not the program
"""
_CONTROLLED = ("logits_processors", "draft_model", "echo", "batch_size", "sample", "logprobs")  # nothing to set here
_JSON_NAMES = {"true": True, "false": False, "null": None}


class Repl:
    """The text so far and the options of generate; `take` carries out one line."""

    def __init__(self, model: Model, settings: dict[str, Any]) -> None:
        """Check the options. Raises ValueError for options that the model refuses."""
        self.model = model
        self.settings: dict[str, Any] = {"overflow": "truncate_left", **settings}
        self.text = ""
        self._turns: list[tuple[str, str]] = []  # the text before each turn, and the line typed
        self._commands: dict[str, Callable[[str], None]] = {
            "set": self._set,
            "undo": self._undo,
            "again": self._again,
            "text": lambda _: write(self.text + "\n"),
            "new": self._new,
            "help": lambda _: write(HELP),
        }
        self._try(self.settings)

    def run(self, lines: Iterator[str]) -> None:
        """Carry out lines until they end or /quit. Raises OSError if standard output is closed."""
        for line in lines:
            if line.strip() in ("/quit", "/exit"):
                return
            try:
                self.take(line)
            except OSError:
                raise
            except Exception as error:  # no option may lose the text
                note(str(error) or type(error).__name__)

    def take(self, line: str) -> None:
        """Carry out a command, or add a line to the text and continue it. Raises ValueError if that is impossible."""
        name, _, value = line.removeprefix("/").partition(" ")
        if not line.startswith("/"):
            self._go_on(self._turns, self.text, line)
        elif name in self._commands:
            self._commands[name](value.strip())
        else:
            raise ValueError(f"no command is called /{name}; /help shows those there are")

    def _go_on(self, turns: list[tuple[str, str]], text: str, typed: str) -> None:
        """Continue text + typed, where `turns` made the text. An error leaves the conversation as it was."""
        stream = self.model.stream(text + typed, **self.settings)
        said = ""
        try:
            for piece in stream:
                said += piece
                write(piece)
        except KeyboardInterrupt:
            stream.cancel()
        except Exception:
            write("\n" if said else "")
            raise
        write("\n")
        self._turns = [*turns, (text, typed)]
        self.text = text + typed + said

    def _undo(self, _: str) -> None:
        if not self._turns:
            raise ValueError("there is nothing to undo")
        self.text, typed = self._turns.pop()
        write(f"took back: {typed}\n" if typed else "took back what followed an empty line\n")

    def _again(self, _: str) -> None:
        if not self._turns:
            raise ValueError("there is nothing to write again")
        *before, (text, typed) = self._turns
        self._go_on(before, text, typed)

    def _new(self, _: str) -> None:
        self.text = ""
        self._turns.clear()

    def _set(self, what: str) -> None:
        name, _, value = what.partition(" ")
        if not what:
            write("".join(f"{name} {value!r}\n" for name, value in self.settings.items()))
            return
        if name in _CONTROLLED or name not in OPTIONS:
            _refuse(name)
        changed = {**self.settings, name: _value(value.strip())}
        try:
            self._try(changed)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{name} is {value}: {error}") from None
        self.settings = changed

    def _try(self, settings: dict[str, Any]) -> None:
        """Check the options; nothing is computed yet. The empty text may have no beginning, an id is always a text."""
        self.model.stream(self.text or [0], **settings)


def _refuse(name: str) -> None:
    settable = [known for known in OPTIONS if known not in _CONTROLLED]
    try:
        check_names({name: None})
    except TypeError as error:
        raise ValueError(str(error)) from None
    raise ValueError(f"{name} cannot be set here; choose one of {', '.join(settable)}")


def _value(text: str) -> Any:
    """A Python literal, or true, false, null as in JSON; anything else is text."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError):
        return ast.literal_eval(text)
    return _JSON_NAMES.get(text, text)


def typed_lines(prompt: str = "> ") -> Iterator[str]:
    """Lines from the terminal, with a history file; a line that ends with a backslash is joined to the next."""
    with _history():
        parts: list[str] = []
        while True:
            try:
                line = input("  " if parts else prompt)
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
def _history() -> Iterator[None]:
    """Load and save the history for the arrow keys, if the system has readline and the user a home."""
    try:
        import readline

        file = home() / "history"
    except (ImportError, ValueError):
        yield
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            readline.write_history_file(file)
