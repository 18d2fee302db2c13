"""Memory for kernels: zeros that begin at a cache line, and memory that goes back to the system."""

import mmap
import os

import numpy as np
import pytest

from nbgpt.backend.buffers import LentMemory, aligned_zeros


@pytest.mark.parametrize("shape", [(0,), (1,), (5, 7), (1000,), (3, 0, 2)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int64"])
def test_zeros_begin_at_a_cache_line(shape, dtype):
    arrays = [aligned_zeros(shape, dtype) for _ in range(8)]  # all at once, so that they lie at different places
    for array in arrays:
        assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.ctypes.data % 64 == 0 or not array.size
        assert not array.any()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_whole_pages_of_the_system_are_given_back(dtype):
    n = 4 * mmap.PAGESIZE // np.dtype(dtype).itemsize
    lent = LentMemory(n, dtype)
    assert (lent.array.shape, lent.array.dtype, lent.array.any()) == ((n,), dtype, False)
    lent.array[:] = 1
    lent.give_back(n // 8, n - n // 8)
    assert np.array_equal(lent.array.reshape(4, -1).sum(axis=1, dtype=np.float64), [n // 4, 0, 0, n // 4])
    lent.give_back(5, n // 4 - 1)
    assert lent.array[: n // 4].all()
    lent.array[:] = 2
    assert (lent.array == 2).all()


@pytest.mark.parametrize("n", [1 << 58, 1 << 62])
def test_more_than_there_is(n):
    with pytest.raises(MemoryError, match=f"the system does not give {4 * n} bytes"):
        LentMemory(n, "float32")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_forks_that_may_use_more_than_there_is():
    """As one with several models: their KV caches are a quarter of the memory each, and lie side by side."""
    quarter = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 4
    several = [LentMemory(quarter, "uint8") for _ in range(6)]
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert len(several) == 6
