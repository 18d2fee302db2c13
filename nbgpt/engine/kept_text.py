"""What sessions keep of their texts between requests, until somebody else needs the memory."""

from __future__ import annotations

import time
from collections import deque
from weakref import WeakValueDictionary

from .kv_cache import KVCache, Sequence
from .turns import alive
from .window import Window


class KeptText:
    """A session's text so far: the ids that were read, and the pages of the KV cache that hold them.

    The pages are dropped when others need the memory; the ids are then read again.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []  # never more than the sequence holds
        self.sequence = Sequence()
        self.ended: deque[Window] = deque()  # windows of requests that have ended, their pages with them; latest last
        self.is_dropped = False  # the session has closed: nothing is kept any more
        self.last_used = time.monotonic()


class KeptTexts:
    """The texts of all sessions that may have pages; it keeps none of them alive."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._texts: WeakValueDictionary[int, KeptText] = WeakValueDictionary()  # by id()

    @property
    def sequences(self) -> list[Sequence]:
        """Of all texts."""
        return [kept.sequence for kept in alive(self._texts)]

    def add(self, kept: KeptText) -> None:
        """Register a text: from now on its pages may be dropped."""
        self._texts[id(kept)] = kept

    def settle(self, kept: KeptText) -> None:
        """Take over the pages of a session's ended requests: the last of them is the session's text from now on."""
        while kept.ended:
            window = kept.ended.popleft()
            if window.sequence is kept.sequence or not window.sequence.length:  # settled before, or never begun
                continue
            if window.is_void or kept.is_dropped:
                self._cache.truncate(window.sequence, 0)
                continue
            self._cache.truncate(window.sequence, len(window.ids))
            self.drop(kept)
            kept.sequence = window.sequence
            kept.ids = window.ids[: window.sequence.length]
            kept.last_used = time.monotonic()

    def fork(self, kept: KeptText, length: int) -> Sequence:
        """A sequence with the first `length` positions of a text."""
        return self._cache.fork(kept.sequence, length)

    def shorten(self, kept: KeptText, length: int) -> None:
        """Keep the first `length` positions of a text."""
        del kept.ids[length:]  # first: they must never be more than the sequence holds
        self._cache.truncate(kept.sequence, length)

    def drop(self, kept: KeptText) -> None:
        """Give the pages of a text back."""
        self.shorten(kept, 0)

    def drop_oldest(self) -> bool:
        """Give the pages of the text back that was used least recently; False if there are none."""
        idle = [kept for kept in alive(self._texts) if kept.sequence.pages]
        if not idle:
            return False
        self.drop(min(idle, key=lambda kept: kept.last_used))
        return True
