"""Arrays between two pages of memory that nobody may touch: an access beyond either end ends the process (SIGSEGV)."""

import ctypes
import mmap
from math import prod

import numpy as np

_PAGE = mmap.PAGESIZE
_NO_ACCESS = 0
_CACHE_LINE = 64


def guarded_zeros(shape, dtype, at_end=True):
    """As `backend.buffers.aligned_zeros`: it ends where the memory does (up to the alignment), or begins there."""
    shape = (shape,) if isinstance(shape, int) else shape
    n_bytes = prod(shape) * np.dtype(dtype).itemsize
    n_inside = -(-max(n_bytes, 1) // _PAGE) * _PAGE
    memory = mmap.mmap(-1, n_inside + 2 * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for guard in (base, base + _PAGE + n_inside):
        assert protect(ctypes.c_void_p(guard), ctypes.c_size_t(_PAGE), _NO_ACCESS) == 0
    start = _PAGE + ((n_inside - n_bytes) // _CACHE_LINE * _CACHE_LINE if at_end else 0)
    array = np.frombuffer(memory, np.uint8, n_bytes, start).view(dtype).reshape(shape)
    assert array.ctypes.data % _CACHE_LINE == 0 or not n_bytes
    return array
