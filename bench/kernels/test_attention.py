"""Attention of one head and one row on one thread: GFLOP/s by the depth of the KV cache."""

import numpy as np
import pytest
from numba import njit

from nbgpt.abi.layout import PAGE, attention_floats
from nbgpt.kernels.attention import HeadCache, make_attend
from nbgpt.simd import data


@pytest.mark.parametrize("depth", [64, 1024])
def test_attention_of_decoding(rate, depth):
    attend, head_dim = make_attend(1), 64
    page_size = 2 * PAGE * head_dim

    @njit(error_model="numpy")
    def call(out, query, pages, table, scratch):
        cache = HeadCache(data(pages), data(table), page_size, 0, PAGE * head_dim, head_dim, head_dim)
        for _ in range(100):
            attend(data(out), head_dim, data(query), head_dim, depth - 1, cache, np.float32(0.125), data(scratch))

    random = np.random.default_rng(0)
    pages = random.standard_normal(depth // PAGE * page_size, np.float32)
    out, query, scratch = (
        np.zeros(head_dim, np.float32),
        random.standard_normal(head_dim, np.float32),
        np.zeros(attention_floats(1, head_dim), np.float32),
    )
    table = np.arange(depth // PAGE, dtype=np.int32)
    rate(lambda: call(out, query, pages, table, scratch), "GFLOP/s", 100 * 4 * depth * head_dim / 1e9)
