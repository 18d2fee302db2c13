"""Multi-head attention over the cache that its own keys and values have filled, with few rows and with many."""

import itertools

import numpy as np
import pytest
import reference
from jobs import file_of, new_job, run_threads
from numba import njit, types

from nbgpt.abi.job import LAYER_TENSORS
from nbgpt.abi.layout import FEW_ROWS, LANES, PAGE, QUERY_TILE, attention_floats, padded
from nbgpt.kernels.fields import n_rows
from nbgpt.kernels.multi_head import append_to_cache, attention, merged_heads, n_qkv
from nbgpt.simd import data

N_HEAD, HEAD_DIM, N_LAYER, LAYER, N_PAST = 3, 20, 2, 1, 330  # more than a span of pages
N_EMBD, VALUE_DIM, N_PAGES = N_HEAD * HEAD_DIM, padded(HEAD_DIM, LANES), -(-N_PAST // PAGE)
STRIDE, MAX_SPANS = padded(N_EMBD, 64), 2


@njit(error_model="numpy")
def append(job):
    job = data(job)
    for row in range(n_rows(job)):
        middle = n_qkv(job) // 2  # in two parts, as work items end where they like
        append_to_cache(job, LAYER, row, 0, middle // LANES * LANES)
        append_to_cache(job, LAYER, row, middle // LANES * LANES, padded_columns)


padded_columns = padded(3 * N_EMBD, 32)


@njit(error_model="numpy", nogil=True)
def attend(job, thread):
    attention(data(job), types.int64(LAYER), types.int64(0), types.int64(thread))


@njit(error_model="numpy")
def output(job, out, owner):
    for row in range(len(out)):
        merged = merged_heads(data(job), LAYER, row, owner)
        for i in range(out.shape[1]):
            out[row, i] = merged[i]


class Cache:
    def __init__(self, rng, dtype):
        self.bias = rng.standard_normal(3 * N_EMBD, np.float32)
        self.weights, offsets = file_of({"attn.c_attn.bias": np.pad(self.bias, (0, 32))})
        self.offsets = np.zeros((N_LAYER, len(LAYER_TENSORS)), np.int64)
        self.offsets[LAYER] = [offsets.get(name, 0) for name in LAYER_TENSORS]
        page = N_LAYER * N_HEAD * PAGE * (HEAD_DIM + VALUE_DIM)
        self.pages = np.full((N_PAGES + 1) * page, np.nan, dtype)
        self.table = rng.permutation(N_PAGES + 1)[:N_PAGES].astype(np.int32)

    def rows(self, qkv, first, n_threads):
        """Append rows [n, 3 n_embd] of one sequence at positions first, first + 1, ... -> attention [n, n_embd]."""
        n = len(qkv)
        padded_qkv = np.zeros((n, padded(3 * N_EMBD, 64)), np.float32)
        padded_qkv[:, : 3 * N_EMBD] = qkv
        stride = padded(attention_floats(QUERY_TILE, HEAD_DIM), LANES)
        sizes = {"n_rows": n, "n_head": N_HEAD, "n_embd": N_EMBD, "n_layer": N_LAYER, "max_spans": MAX_SPANS}
        sizes |= {"n_threads": n_threads, "scratch_stride": stride, "kv_is_float16": self.pages.dtype == np.float16}
        job = new_job(
            **sizes,
            weights=self.weights,
            layer_offsets=self.offsets,
            positions=np.arange(first, first + n, dtype=np.int32),
            table_starts=np.zeros(n, np.int32),
            page_tables=self.table,
            pages=self.pages,
            qkv=padded_qkv,
            attention_scales=np.array([np.nan, HEAD_DIM**-0.5], np.float32),
            attended=np.full((max(n, FEW_ROWS * n_threads), STRIDE), np.nan, np.float32),
            scratch=np.full((n_threads, stride), np.nan, np.float32),
            states=np.full(FEW_ROWS * N_HEAD * MAX_SPANS * (VALUE_DIM + LANES), np.nan, np.float32),
        )
        append(job)
        run_threads(lambda thread: attend(job, thread), n_threads)
        out = np.zeros((n, N_EMBD), np.float32)
        output(job, out, n_threads - 1 if n <= FEW_ROWS else 0)
        return out


def expected(qkv, bias, dtype):
    q, k, v = (part.reshape(len(qkv), N_HEAD, HEAD_DIM) for part in np.split(qkv + bias, 3, axis=1))
    k, v = (part.astype(dtype).astype(np.float64) for part in (k, v))
    heads = [reference.attention(np.float64(q[:, h]), k[:, h], v[:, h], HEAD_DIM**-0.5) for h in range(N_HEAD)]
    return np.concatenate(heads, axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_any_rows_and_threads(rng, dtype):
    qkv = rng.standard_normal((N_PAST, 3 * N_EMBD), np.float32)
    whole = Cache(rng, dtype)
    out = whole.rows(qkv, 0, 1)
    np.testing.assert_allclose(out, expected(qkv, whole.bias, dtype), atol=5e-6)
    parts = [0, 1, 3, 10, 64, 255, 256, 257, 300, 328, N_PAST]  # one row, two, and more
    for n_threads in (1, 3):
        cache = Cache(np.random.default_rng(0), dtype)
        cache.bias[:], cache.weights[:] = whole.bias, whole.weights
        for first, last in itertools.pairwise(parts):
            np.testing.assert_array_equal(cache.rows(qkv[first:last], first, n_threads), out[first:last])
