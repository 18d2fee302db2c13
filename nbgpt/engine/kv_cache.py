"""The paged KV cache: keys and values of past positions, in pages of 64 positions that sequences can share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from ..abi.layout import LANES, PAGE, padded
from ..backend.buffers import aligned_zeros
from ..config import GPT2Config

KVDtype = Literal["float32", "float16"]


@dataclass
class Sequence:
    """A text in the cache: the pages that hold its past, in order, and how many positions are filled."""

    pages: list[int] = field(default_factory=list)
    length: int = 0


class KVCache:
    """Pages of keys and values of all layers; see kernels/attention.py for what a page holds."""

    def __init__(self, config: GPT2Config, dtype: KVDtype = "float32") -> None:
        """Raise ValueError for another type than float32 and float16."""
        if dtype not in get_args(KVDtype):
            raise ValueError(f"kv_dtype is {dtype!r}; choose one of {', '.join(get_args(KVDtype))}")
        head_dim = config.head_dim
        self.dtype = dtype
        self.page_size = config.n_layer * config.n_head * PAGE * (head_dim + padded(head_dim, LANES))
        self.memory = np.zeros(0, dtype)  # [n_pages * page_size]
        self._config = config
        self._users: list[int] = []  # of each page, how many sequences hold it
        self._free: list[int] = []

    @property
    def page_bytes(self) -> int:
        return self.page_size * self.memory.itemsize

    @property
    def bytes_a_position(self) -> int:
        """Keys and values of all layers, which a token reads for each position before it."""
        return self.page_bytes // PAGE

    @property
    def bytes_in_use(self) -> int:
        return self.page_bytes * (len(self._users) - len(self._free))

    def extend(self, sequence: Sequence, length: int) -> None:
        """Make room for positions up to length, the last page no longer shared if it is going to be written to."""
        if sequence.length < length and sequence.length % PAGE and self._users[sequence.pages[-1]] > 1:
            shared = sequence.pages.pop()
            self._users[shared] -= 1
            own = self._take()
            self._page(own)[:] = self._page(shared)
            sequence.pages.append(own)
        while len(sequence.pages) * PAGE < length:
            sequence.pages.append(self._take())

    def fork(self, sequence: Sequence) -> Sequence:
        """Another sequence with the same past, which costs nothing until one of them goes on."""
        for page in sequence.pages:
            self._users[page] += 1
        return Sequence(list(sequence.pages), sequence.length)

    def truncate(self, sequence: Sequence, length: int) -> None:
        """Forget the positions from length on."""
        keep = -(-length // PAGE)
        for page in sequence.pages[keep:]:
            self._users[page] -= 1
            if not self._users[page]:
                self._free.append(page)
        del sequence.pages[keep:]
        sequence.length = min(sequence.length, length)

    def copy(self, sequence: Sequence) -> np.ndarray:
        """The pages of a sequence [n_pages, numbers of a page]; beyond its end, where others may have been, zeros."""
        pages = self.memory.reshape(-1, self.page_size)[sequence.pages]
        if n_filled := sequence.length % PAGE:
            n_layer, n_head, n_embd = self._config.n_layer, self._config.n_head, self._config.n_embd
            keys, values = np.split(pages[-1].reshape(n_layer, -1), [n_embd * PAGE], axis=1)
            keys.reshape(n_layer, n_embd, PAGE)[:, :, n_filled:] = 0
            values.reshape(n_layer, n_head, PAGE, -1)[:, :, n_filled:] = 0
        return pages

    def restore(self, pages: np.ndarray, length: int) -> Sequence:
        """A sequence of so many positions with the pages that `copy` gave."""
        sequence = Sequence()
        self.extend(sequence, length)
        for page, values in zip(sequence.pages, pages, strict=True):
            self._page(page)[:] = values
        sequence.length = length
        return sequence

    def _page(self, page: int) -> np.ndarray:
        return self.memory[page * self.page_size : (page + 1) * self.page_size]

    def _take(self) -> int:
        if not self._free:
            self._grow()
        page = self._free.pop()
        self._users[page] = 1
        return page

    def _grow(self) -> None:
        n_pages = len(self._users)
        wanted = max(16, 2 * n_pages)
        memory = aligned_zeros((wanted * self.page_size,), self.dtype)
        memory[: len(self.memory)] = self.memory
        self.memory = memory
        self._users += [0] * (wanted - n_pages)
        self._free += range(wanted - 1, n_pages - 1, -1)
