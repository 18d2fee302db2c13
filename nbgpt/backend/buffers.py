"""Memory for kernels."""

from __future__ import annotations

import mmap
import sys
from math import prod

import numpy as np

_CACHE_LINE = 64
_OS_PAGE = mmap.PAGESIZE
_UNCOUNTED = 0x4000 if sys.platform == "linux" else 0  # MAP_NORESERVE of x86 and ARM, which Python 3.12 does not name


def aligned_zeros(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Zeros aligned to a cache line: in an unaligned array, every load of a 64-byte register touches two lines.

    The system provides the memory when it is first touched.
    """
    n, item = prod(shape), np.dtype(dtype).itemsize
    memory = np.zeros(n + _CACHE_LINE // item, dtype)
    start = -memory.ctypes.data % _CACHE_LINE // item
    return memory[start : start + n].reshape(shape)


class LentMemory:
    """Memory that the system provides when it is first touched, and takes back part by part when it is not needed."""

    def __init__(self, n: int, dtype: str) -> None:
        """n: numbers, at least one. Raises MemoryError that says how many bytes were wanted."""
        n_bytes = n * np.dtype(dtype).itemsize
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            mmap.mmap(-1, n_bytes, flags=private).close()  # would the system give so much?
            # What stays is not counted: Linux joins neighbours to one mapping, and forks no process with one that is
            # larger than the machine's memory.
            self._map = mmap.mmap(-1, n_bytes, flags=private | _UNCOUNTED)
        except (OSError, ValueError, OverflowError):
            raise MemoryError(f"the system does not give {n_bytes} bytes") from None
        self.array = np.frombuffer(self._map, dtype)  # [n], zeros

    def give_back(self, start: int, stop: int) -> None:
        """Give the memory of array[start:stop] back; its numbers are then zeros or what they were."""
        item = self.array.itemsize
        first, last = -(-start * item // _OS_PAGE) * _OS_PAGE, stop * item // _OS_PAGE * _OS_PAGE
        if last > first and hasattr(self._map, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)
