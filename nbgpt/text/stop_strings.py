"""Stop strings: texts that end a continuation, however they are divided into tokens."""

from __future__ import annotations

from collections.abc import Collection


class StopStrings:
    """Passes text on up to the first stop string, and holds back an end that may be the beginning of one."""

    def __init__(self, stops: Collection[str]) -> None:
        """stops: the stop strings, none of them empty."""
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """Add a piece -> the text that is part of no stop string. Sets `found` if a stop string ends it."""
        text = self._held + piece
        if ends := [end for stop in self._stops if (end := text.find(stop)) >= 0]:
            self.found, self._held = True, ""
            return text[: min(ends)]
        n_held = self._n_held(text)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def finish(self) -> str:
        """The text that was held back, which no stop string has completed."""
        text, self._held = self._held, ""
        return text

    def _n_held(self, text: str) -> int:
        """Length of the longest suffix of the text that is a proper prefix of a stop string."""
        for n in range(min(len(text), self._longest - 1), 0, -1):
            if any(stop.startswith(text[-n:]) for stop in self._stops):
                return n
        return 0
