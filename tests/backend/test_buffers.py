"""Memory for kernels: zeros that begin at a cache line."""

import numpy as np
import pytest

from nbgpt.backend.buffers import aligned_zeros


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
