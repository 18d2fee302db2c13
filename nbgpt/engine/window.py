"""The part of a text that the model sees."""

from __future__ import annotations

from .kv_cache import Sequence


class Window:
    """The ids that the model sees of a text, and the sequence of the KV cache that holds all of them but the end.

    A text that outgrows the context is shifted (llama.cpp's context shift): the first n_keep ids stay, and of the rest
    the later half. Positions are learned, so keys cannot move: what is left is read again.
    """

    def __init__(self, ids: list[int], n_ctx: int, n_keep: int) -> None:
        self.ids = ids if len(ids) <= n_ctx else ids[:n_keep] + ids[n_keep - n_ctx :]
        self.sequence = Sequence()
        self.is_shifted = len(ids) > n_ctx
        self.is_void = False  # the sequence may hold anything: a pass was cut short
        self.n_ctx, self._n_keep = n_ctx, n_keep

    @property
    def n_pending(self) -> int:
        """Ids that are still to be read."""
        return len(self.ids) - self.sequence.length

    def shift(self) -> bool:
        """Make the ids fit the context; True if some had to be dropped and the sequence is void."""
        if len(self.ids) <= self.n_ctx:
            return False
        self.is_shifted = True
        self.ids = self.ids[: self._n_keep] + self.ids[-max(1, (self.n_ctx - self._n_keep) // 2) :]
        return True
