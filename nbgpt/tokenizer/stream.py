"""Text from ids one by one, never half a character."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence

_SPAN = 4  # tokens that a character may be spread over: the bytes of the longest
CONTEXT = 24
"""Tokens before a text that are looked at: whole characters of 1, 2, 3 or 4 byte tokens each."""


class StreamDecoder(ABC):
    """Text from ids one by one; a character whose bytes are spread over tokens comes with the last of them."""

    @abstractmethod
    def push(self, i: int) -> str:
        """The text that an id completes, perhaps none. Raises ValueError for an id that has no token."""

    @abstractmethod
    def finish(self) -> str:
        """What is left when no id follows: U+FFFD if a character is incomplete, otherwise nothing."""


class ByteStream(StreamDecoder):
    """For vocabularies whose text is the bytes of its tokens on end."""

    def __init__(self, bytes_of: Callable[[int], bytes], hidden: Collection[int], after: Sequence[int]) -> None:
        """Take the bytes of a token, the ids that are not written, and the ids that were read before."""
        self._bytes_of, self._hidden = bytes_of, hidden
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for i in after[-_SPAN:]:
            self.push(i)

    def push(self, i: int) -> str:
        return "" if i in self._hidden else self._utf8.decode(self._bytes_of(i))

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class WindowStream(StreamDecoder):
    """For vocabularies in which a token's text depends on its neighbours: what a few tokens say together grows.

    The text of a window that ends with U+FFFD may be half a character: it waits for the tokens that complete it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], hidden: Collection[int], after: Sequence[int]) -> None:
        """Take what decodes a few ids, the ids that are not written, and the ids that were read before."""
        self._decode, self._hidden = decode, hidden
        self._window = [i for i in after[-CONTEXT:] if i not in hidden]
        self._n_given = len(self._window)  # tokens of the window whose text was given
        while self._n_given and decode(self._window[: self._n_given]).endswith("\ufffd"):
            self._n_given -= 1
        self._given = decode(self._window[: self._n_given])

    def push(self, i: int) -> str:
        if i in self._hidden:
            return ""
        text = self._decode([*self._window, i])[len(self._given) :]
        self._window.append(i)
        n_waiting = len(self._window) - self._n_given
        return "" if not text or (text.endswith("\ufffd") and n_waiting < _SPAN) else self._give(text)

    def finish(self) -> str:
        return self._give(self._decode(self._window)[len(self._given) :])

    def _give(self, text: str) -> str:
        """Keep the tokens of this text alone: the window begins with a whole character again."""
        self._window = self._window[self._n_given :]
        self._n_given, self._given = len(self._window), self._decode(self._window)
        return text
