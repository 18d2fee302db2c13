"""The text with its history, the settings, and the model that continues it."""

from __future__ import annotations

from collections.abc import Iterator

from ...model import Model
from ...text.stream import Stream
from ..shading import with_probabilities
from .display import Display
from .ending import length_of
from .history import History
from .manuscript import End, Manuscript, Span, cut
from .settings import Settings

_SHOWN_END = 300
"""Characters of the text's end that show where one is."""


class Workspace:
    """What the commands work on. A change of the text is shown, and can be undone."""

    def __init__(
        self,
        model: Model,
        settings: Settings,
        display: Display,
        *,
        is_interactive: bool = False,
        shows_typed: bool = False,
    ) -> None:
        """Check the settings.

        is_interactive: a person waits: Ctrl-C ends what the model writes, and not the program.
        shows_typed: what was typed is shown with its continuation, since it no longer is on the screen.

        Raises ValueError for settings that the model refuses.
        """
        self.model, self.display = model, display
        self.history = History(Manuscript())
        self.alternatives: list[str] = []  # of the present text, which a number picks
        self.saved = ""  # the text that is in a file
        self.left = ""  # the text that /new has ended, if it is in no file
        self._is_interactive, self._shows_typed = is_interactive, shows_typed
        self.set(settings)

    @property
    def manuscript(self) -> Manuscript:
        """The text, and who wrote what."""
        return self.history.now

    @property
    def text(self) -> str:
        """The text alone."""
        return self.history.now.text

    def set(self, settings: Settings) -> None:
        """Take other settings. Raises ValueError if the model refuses them; nothing is computed yet."""
        try:
            self.model.stream([0], **settings.for_generate())  # an id: a model may have no beginning for ""
        except (AttributeError, TypeError) as error:
            raise ValueError(str(error)) from None
        self.settings = settings

    def add(self, typed: str) -> None:
        """Add what was typed to the text, and let the model continue it. An error leaves the text as it was."""
        base = self.manuscript.typed(typed, self.settings["space"])
        new = base.spans[len(self.manuscript.spans) :] if self._shows_typed else ()
        for span in new:
            self.display.add(Span(span.text.lstrip(" ")))
        self.display.flush()
        self.go_on(base, typed.strip() or "an empty line")

    def again(self, *, is_same: bool) -> None:
        """Write the last continuation anew: with its seed, or with the next one, which later texts then have too."""
        old, base = self.manuscript, self.manuscript.before_turn()
        seed, end = (old.turn.seed, old.turn.end) if old.turn else (0, None)
        if not is_same:
            seed = self._move_seed_on()
        if self._is_interactive and base.spans and not base.spans[-1].is_written:
            self.display.add(Span(base.spans[-1].text[-_SHOWN_END:].lstrip(" ")))
            self.display.flush()
        self.go_on(base, "/again same" if is_same else "/again", end, seed)
        if self.text == old.text and not is_same:
            self.display.note(
                "the text is the same: the settings leave the model hardly a choice; try /set temperature 1"
            )

    def _move_seed_on(self) -> int:
        if self.settings["seed"] is not None:
            self.settings = self.settings.with_seed((self.settings["seed"] + 1) % 2**64)
        return self.settings.next_seed()

    def go_on(self, base: Manuscript, change: str, end: End | None = None, seed: int | None = None) -> None:
        """Let the model continue a text and keep both. An error leaves the text as it was.

        Args:
            base: the text.
            change: what the history calls this.
            end: where the continuation ends; None: where the settings say.
            seed: of the continuation; None: the settings decide.
        """
        seed = self.settings.next_seed() if seed is None else seed
        stream = self.model.stream(base.text, **self.settings.with_seed(seed).for_generate())
        spans: list[Span] = []
        try:
            for span in _spans(stream, end or self.settings["end"], base.text):
                spans.append(span)
                self.display.add(span, self.settings["color"])
        except KeyboardInterrupt:
            if not self._is_interactive:
                raise
        finally:
            stream.cancel()
            self.display.end()
        length = length_of("".join(span.text for span in spans), end or self.settings["end"], base.text)
        self.change(base.written(spans if length is None else cut(spans, 0, length), seed, end), change)
        if not spans and stream.completion.finish_reason == "stop":
            self.display.note("the model ends the text here; type more, or /again")

    def change(self, manuscript: Manuscript, change: str) -> None:
        """Take another text. change: what the history calls this."""
        self.alternatives = []
        self.history.change(manuscript, change)

    def undo(self) -> None:
        """Take back the last change, and show where the text ends then. Raises ValueError if there is none."""
        self.display.note(f"taken back: {self.history.undo()}")
        self.alternatives = []
        self.show_end()

    def redo(self) -> None:
        """Make the change again that was taken back, and show where the text ends. Raises ValueError as `undo`."""
        self.display.note(f"made again: {self.history.redo()}")
        self.alternatives = []
        self.show_end()

    def show(self, manuscript: Manuscript | None = None) -> None:
        """Show a text, by default the whole one."""
        for span in (manuscript or self.manuscript).spans:
            self.display.add(span, self.settings["color"])
        self.display.end()

    def show_end(self) -> None:
        """Show the end of the text, where one goes on."""
        text = self.text
        start = max(0, len(text) - _SHOWN_END)
        if start:
            start = text.find(" ", start) + 1 or start
            self.display.add(Span("… "))
        self.show(Manuscript(tuple(cut(self.manuscript.spans, start, len(text)))))


def _spans(stream: Stream, end: End, before: str) -> Iterator[Span]:
    """The pieces of a stream up to its end, with their probabilities if the stream measures them."""
    measured = stream.completion.logprobs is not None
    text = ""
    for piece, probability in with_probabilities(stream) if measured else ((piece, None) for piece in stream):
        start = len(text)
        text += piece
        length = length_of(text, end, before)
        if part := text[start:length]:
            yield Span(part, True, probability)
        if length is not None:
            return
