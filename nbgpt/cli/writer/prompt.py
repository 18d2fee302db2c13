"""Lines from a terminal with prompt_toolkit: Tab, history and its search, several lines."""

from __future__ import annotations

from collections.abc import Iterator

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from ..terminal import dimmed, write
from .typed import MORE, PROMPT, Complete, writable_file


def prompted_lines(complete: Complete, keeps_typed: bool) -> Iterator[str]:
    """Lines until Ctrl-D. Ctrl-C gives up the line.

    keeps_typed: text that was typed stays on the screen; else it makes room, for it to be shown with what follows it.
    """
    file = writable_file("typed")
    session: PromptSession[str] = PromptSession(
        PROMPT,
        history=FileHistory(file) if file else InMemoryHistory(),
        completer=_Completer(complete),
        complete_while_typing=False,
        key_bindings=_keys(),
        multiline=Condition(lambda: "\n" in get_app().current_buffer.text),
        prompt_continuation=MORE,
        erase_when_done=not keeps_typed,
    )
    while True:
        try:
            line = session.prompt()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if not keeps_typed and line.startswith("/"):
            write(dimmed(PROMPT + line) + "\n")
        yield line


class _Completer(Completer):
    """What Tab offers, with its meaning beside it."""

    def __init__(self, complete: Complete) -> None:
        self._complete = complete

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        word, found = self._complete(document.text_before_cursor)
        for one in found:
            yield Completion(one.text, start_position=-len(word), display_meta=one.meaning)


def _keys() -> KeyBindings:
    """Enter ends the input, unless a backslash stands before it; Alt-Enter is a line break."""
    keys = KeyBindings()

    @keys.add("enter", filter=has_focus(DEFAULT_BUFFER))  # and not in a search, which it ends
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=has_focus(DEFAULT_BUFFER))
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
