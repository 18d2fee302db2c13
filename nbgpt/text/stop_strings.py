"""Texts that end a text, wherever tokens are cut."""

from __future__ import annotations

from collections.abc import Collection


class StopTexts:
    """Lets text through piece by piece, up to the first stop text in it; what may become one waits for the rest."""

    def __init__(self, stops: Collection[str]) -> None:
        """Take the stop texts, none of them empty."""
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The text that is certain by now; `found` says whether it is the last."""
        text = self._held + piece
        if ends := [end for stop in self._stops if (end := text.find(stop)) >= 0]:
            self.found, self._held = True, ""
            return text[: min(ends)]
        n_held = self._n_held(text)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def finish(self) -> str:
        """What waited in vain."""
        text, self._held = self._held, ""
        return text

    def _n_held(self, text: str) -> int:
        """Length of the longest end of the text with which a stop text begins."""
        for n in range(min(len(text), self._longest - 1), 0, -1):
            if any(stop.startswith(text[-n:]) for stop in self._stops):
                return n
        return 0
