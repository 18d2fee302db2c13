"""The paged KV cache: keys and values of past positions, in pages of 64 positions that sequences can share."""

from __future__ import annotations

import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Literal, get_args

import numpy as np

from ..abi.layout import LANES, PAGE, padded
from ..backend.buffers import LentMemory
from ..config import GPT2Config

KVDtype = Literal["float32", "float16"]
KEPT_FREE = 32
"""Free pages whose memory stays, so that texts which come and go do not ask the system for it again."""


class KVMemoryError(MemoryError):
    """The KV cache is full, and nothing in it can be dropped."""


class Sequence:
    """The keys and values of one text: the numbers of its pages, in order, and how many positions are filled.

    When the object is dropped, its pages return to the cache.
    """

    def __init__(self) -> None:
        self.pages: list[int] = []
        self.length = 0
        self.room = 0  # positions that may be written: length, or more once `extend` has made room for a pass
        self.claim: _Claim | None = None  # set by the cache before the first page


class _Claim(weakref.ref[Sequence]):
    """A weak reference to a sequence, with its pages: the cache keeps it until it has taken them back."""

    pages: list[int]  # the same list as the sequence's


class KVCache:
    """Pages of keys and values of all layers; see kernels/attention.py for what a page holds.

    Addresses for all of the limit are reserved at the start, so that pages never move. The system provides memory for a
    page when it is first written, and takes it back when many pages are free.

    The garbage collector may drop a sequence at any moment. So that takes no lock, and runs no Python code, in which a
    Ctrl-C would be lost: the weak reference appends itself to a queue, and the next call frees the pages.
    """

    def __init__(self, config: GPT2Config, dtype: KVDtype, limit: int) -> None:
        """limit: bytes of all pages together. Raises ValueError for less than one page, or an unknown dtype."""
        if dtype not in get_args(KVDtype):
            raise ValueError(f"kv_dtype is {dtype!r}; choose one of {', '.join(get_args(KVDtype))}")
        head_dim = config.head_dim
        self.dtype = dtype
        self.page_size = config.n_layer * config.n_head * PAGE * (head_dim + padded(head_dim, LANES))
        self.n_pages = limit // self.page_bytes
        if not self.n_pages:
            raise ValueError(f"kv_memory is {limit} bytes; a page of {PAGE} tokens takes {self.page_bytes}")
        try:
            self._lent: LentMemory | None = LentMemory(self.n_pages * self.page_size, dtype)
        except MemoryError as error:
            raise KVMemoryError(f"kv_memory is {limit} bytes and {error}: ask for less") from None
        self.memory = self._lent.array
        self.reclaim: Callable[[], bool] = lambda: False
        """Called when all pages are taken. Frees some that can be computed again; returns False if there are none."""
        self._config = config
        self._users: list[int] = []  # for each page that was ever taken: how many sequences hold it
        self._filled: list[int] = []  # for each: positions written, or about to be written, by any sequence
        self._free: list[int] = []  # taken before, and free again; those whose memory stays come last
        self._n_given_back = 0  # so many of the first of these have given their memory back
        self._claims: dict[int, _Claim] = {}  # by id(): weak references to equal objects are equal
        self._returned: deque[_Claim] = deque()  # of dropped sequences, until `_collect` frees their pages

    @property
    def page_bytes(self) -> int:
        return self.page_size * np.dtype(self.dtype).itemsize

    @property
    def position_bytes(self) -> int:
        """Bytes of the keys and values of one position, all layers."""
        return self.page_bytes // PAGE

    @property
    def n_used(self) -> int:
        """Pages that sequences hold."""
        self._collect()
        return len(self._users) - len(self._free)

    @property
    def usage(self) -> float:
        """Share of the pages that sequences hold, dropped ones until the next call included. Takes no lock."""
        return (len(self._users) - len(self._free)) / max(1, self.n_pages)

    @property
    def n_available(self) -> int:
        """Pages that can be taken without dropping anything."""
        return self.n_pages - self.n_used

    def n_held_only_by(self, sequences: Iterable[Sequence]) -> int:
        """Pages that would be free if these sequences let them go."""
        self._collect()
        held = Counter(page for sequence in sequences for page in sequence.pages)
        return sum(n == self._users[page] for page, n in held.items())

    def close(self) -> None:
        """Give the memory back to the system."""
        self.memory, self._lent = np.zeros(0, self.dtype), None
        self.n_pages = 0

    def n_missing(self, sequence: Sequence, length: int) -> int:
        """Pages that `extend` would take."""
        self._collect()
        n_new = -(-length // PAGE) - len(sequence.pages)
        return max(0, n_new) + (length > sequence.room and self._must_copy(sequence))

    def extend(self, sequence: Sequence, length: int) -> None:
        """Take pages for positions 0 to length - 1. Raises KVMemoryError if too few are left.

        A shared last page is copied only if another sequence has written beyond this one's end (see `_must_copy`).
        """
        if length <= sequence.room:
            return
        self._note(sequence)
        self._shorten(sequence, -(-sequence.room // PAGE))  # an interrupted call may have left shared pages at the end
        if self._must_copy(sequence):
            own = self._take()
            last = sequence.room // PAGE
            shared = sequence.pages[last]
            self._page(own)[:] = self._page(shared)
            sequence.pages[last] = own
            self._release(shared)
        while len(sequence.pages) * PAGE < length:
            sequence.pages.append(self._take())
        for page in sequence.pages[sequence.room // PAGE :]:
            self._filled[page] = PAGE
        self._filled[sequence.pages[-1]] = length - (len(sequence.pages) - 1) * PAGE
        sequence.room = length

    def fork(self, sequence: Sequence, length: int) -> Sequence:
        """Another sequence with the first `length` positions, on the same pages: nothing is copied until one grows."""
        return self._share(sequence.pages[: -(-length // PAGE)], length)

    def page_of(self, sequence: Sequence, number: int, length: int) -> Sequence:
        """A sequence of one page, which it keeps in use: the first `length` positions of page `number` of another."""
        return self._share([sequence.pages[number]], length)

    def join(self, pages: list[Sequence], length: int) -> Sequence:
        """A sequence of `length` positions from consecutive pages that `page_of` returned."""
        return self._share([page.pages[0] for page in pages], length)

    def _share(self, pages: list[int], length: int) -> Sequence:
        sequence = Sequence()
        self._note(sequence)
        for page in pages:
            self._users[page] += 1
            sequence.pages.append(page)
        sequence.length = sequence.room = length
        return sequence

    def truncate(self, sequence: Sequence, length: int) -> None:
        """Drop the positions from length on."""
        sequence.length = sequence.room = min(sequence.length, length)
        self._shorten(sequence, -(-sequence.length // PAGE))

    def free(self, sequence: Sequence) -> None:
        """Drop all positions; the next call frees the pages. The only method that needs no lock."""
        claim, sequence.claim = sequence.claim, None
        sequence.pages, sequence.length, sequence.room = [], 0, 0
        if claim is not None:
            self._returned.append(claim)

    def copy(self, sequence: Sequence) -> np.ndarray:
        """A copy of a sequence's pages [n_pages, page_size], with zeros beyond its end, where others may write."""
        pages = self.memory.reshape(-1, self.page_size)[sequence.pages[: -(-sequence.length // PAGE)]]
        if n_filled := sequence.length % PAGE:
            n_layer, n_head, n_embd = self._config.n_layer, self._config.n_head, self._config.n_embd
            keys, values = np.split(pages[-1].reshape(n_layer, -1), [n_embd * PAGE], axis=1)
            keys.reshape(n_layer, n_embd, PAGE)[:, :, n_filled:] = 0
            values.reshape(n_layer, n_head, PAGE, -1)[:, :, n_filled:] = 0
        return pages

    def restore(self, pages: np.ndarray, length: int) -> Sequence:
        """A sequence of `length` positions with the contents that `copy` returned."""
        sequence = Sequence()
        self.extend(sequence, length)
        for page, values in zip(sequence.pages, pages, strict=True):
            self._page(page)[:] = values
        sequence.length = length
        return sequence

    def recount(self) -> None:
        """Recompute which pages are used and free from the claims, after a call that was interrupted."""
        while self._returned:
            self._claims.pop(id(self._returned[0]), None)
            self._returned.popleft()
        users = [0] * len(self._users)
        for claim in self._claims.values():
            for page in claim.pages:
                users[page] += 1
        self._users = users
        self._filled += [0] * (len(users) - len(self._filled))
        self._free = [page for page, n in enumerate(users) if not n]
        self._n_given_back = 0

    def _must_copy(self, sequence: Sequence) -> bool:
        """True if the next position may be another sequence's: the last page is shared and filled differently."""
        n_filled = sequence.room % PAGE
        if not n_filled:
            return False
        page = sequence.pages[sequence.room // PAGE]
        return self._users[page] > 1 and self._filled[page] != n_filled

    def _note(self, sequence: Sequence) -> None:
        """Make sure that the cache has a claim on the sequence before it gets pages."""
        self._collect()
        if sequence.claim is None or sequence.claim.pages is not sequence.pages:  # left by an interrupted `free`
            claim = _Claim(sequence, self._returned.append)
            claim.pages = sequence.pages
            self._claims[id(claim)] = claim
            sequence.claim = claim

    def _shorten(self, sequence: Sequence, n_pages: int) -> None:
        dropped = sequence.pages[n_pages:]
        del sequence.pages[n_pages:]
        for page in dropped:
            self._release(page)

    def _page(self, page: int) -> np.ndarray:
        return self.memory[page * self.page_size : (page + 1) * self.page_size]

    def _take(self) -> int:
        self._collect()
        while not self._free and len(self._users) == self.n_pages:
            if not self.reclaim():
                raise KVMemoryError(
                    f"the KV cache is full: {self.n_pages * self.page_bytes} bytes in {self.n_pages} pages of {PAGE} "
                    f"tokens, and {self.page_bytes} more are wanted; close sessions, ask for less at once, or load the "
                    "model with a larger kv_memory"
                )
            self._collect()
        if not self._free:
            self._users.append(0)
            self._filled.append(0)
            self._free.append(len(self._users) - 1)
        page = self._free.pop()
        self._n_given_back = min(self._n_given_back, len(self._free))
        self._users[page] = 1
        return page

    def _release(self, page: int) -> None:
        self._users[page] -= 1
        if not self._users[page]:
            self._free.append(page)
            if len(self._free) - self._n_given_back > 2 * KEPT_FREE:
                self._give_back()

    def _give_back(self) -> None:
        """Give the memory of free pages back to the system, of the longest free ones first, but for a few.

        What a page held is of no account: kernels read no position that its sequence has not written.
        """
        n_given_back = len(self._free) - KEPT_FREE
        for page in self._free[self._n_given_back : n_given_back]:
            if self._lent is not None:
                self._lent.give_back(page * self.page_size, (page + 1) * self.page_size)
        self._n_given_back = n_given_back

    def _collect(self) -> None:
        """Free the pages of sequences that were dropped."""
        while self._returned:
            claim = self._returned[0]  # stays queued until its pages are free, should this be interrupted
            if self._claims.pop(id(claim), None) is not None:
                for page in claim.pages:
                    self._release(page)
            self._returned.popleft()
