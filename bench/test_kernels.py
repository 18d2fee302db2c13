"""Kernels alone, on one thread: GFLOP/s of a prefill's matmul, GB/s of decoding's."""

import numpy as np
import pytest
from numba import njit

from nbgpt.abi.layout import LANES, PAGE, PANELS, ROW_TILE, SAMPLING_BUCKETS, attention_floats, sampling_floats
from nbgpt.kernels.attention import HeadCache, make_attend
from nbgpt.kernels.draw import sample
from nbgpt.kernels.matmul import MATMULS
from nbgpt.simd import at, data
from nbgpt.weights import matrix_shapes

ITEM_BYTES = {"F32": 4, "F16": 2, "U8": 1}


def random_matrix(random, dtype, n_in, n_out):
    """The tensors of a native matrix, as bytes; the values do not matter, their sizes do."""
    parts = []
    for name, (kind, shape) in matrix_shapes("w", dtype, n_in, n_out).items():
        n = int(np.prod(shape))
        if kind == "U8":
            parts.append(random.integers(0, 256, n, np.uint8))
        else:
            numbers = np.full(n, 0.01) if "." in name else random.standard_normal(n)
            parts.append(numbers.astype(np.float32 if kind == "F32" else np.float16).view(np.uint8))
    return parts


def product(dtype, n_rows, n_in, n_out):
    """A call that multiplies packed rows by a matrix, and the bytes of that matrix."""
    random, matmul = np.random.default_rng(0), MATMULS[dtype]
    pack, multiply, groups = matmul.pack_row, matmul.multiply, n_in // matmul.group

    @njit(error_model="numpy")
    def pack_all(x, values, sums, scales):
        for row in range(n_rows):
            tile = row - row % ROW_TILE
            place = (
                at(data(values), 4 * tile * n_in),
                at(data(sums), 4 * tile * groups),
                at(data(scales), 4 * tile * groups),
            )
            pack(place, row % ROW_TILE, min(ROW_TILE, n_rows - tile), at(data(x), row * n_in), n_in)

    @njit(error_model="numpy")
    def multiply_all(out, values, sums, scales, w, w_scales, w_offsets):
        weights = data(w), data(w_scales), data(w_offsets)
        for panel in range(0, n_out // LANES, PANELS):
            for tile in range(0, n_rows, ROW_TILE):
                x = (
                    at(data(values), 4 * tile * n_in),
                    at(data(sums), 4 * tile * groups),
                    at(data(scales), 4 * tile * groups),
                )
                corner = at(data(out), tile * n_out + panel * LANES)
                multiply(corner, n_out, x, min(ROW_TILE, n_rows - tile), weights, n_in, panel)

    w = random_matrix(random, dtype, n_in, n_out)
    packed = (
        np.zeros(4 * n_rows * n_in, np.uint8),
        np.zeros(4 * n_rows * groups, np.uint8),
        np.zeros(4 * n_rows * groups, np.uint8),
    )
    pack_all(random.standard_normal((n_rows, n_in), np.float32), *packed)
    out = np.zeros((n_rows, n_out), np.float32)
    operands = [*w, *[w[0]] * (3 - len(w))]
    return lambda: multiply_all(out, *packed, *operands), sum(part.nbytes for part in w)


@pytest.mark.parametrize("dtype", MATMULS)
def test_matmul_of_a_prefill(rate, dtype):
    call, _ = product(dtype, 504, 768, 3072)
    rate(call, "GFLOP/s", 2 * 504 * 768 * 3072 / 1e9)


@pytest.mark.parametrize("n_rows", [1, 8])
@pytest.mark.parametrize("dtype", MATMULS)
def test_matmul_of_decoding(rate, dtype, n_rows):
    call, n_bytes = product(dtype, n_rows, 768, 50176)
    rate(call, "GB/s", n_bytes / 1e9)


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


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (40, 1.0), (40, 0.9), (0, 0.9)])
def test_sampling(rate, top_k, top_p):
    n = 50257

    @njit(error_model="numpy")
    def call(logits, options, buckets, scratch):
        return sample(data(logits), n, data(options), data(buckets), data(scratch))

    logits = np.random.default_rng(0).standard_normal(n + 64).astype(np.float32) * 3
    buckets, scratch = np.zeros(SAMPLING_BUCKETS), np.zeros(sampling_floats(n), np.float32)
    options = np.array([0.8, top_k, top_p, 0.5])
    rate(lambda: call(logits, options, buckets, scratch), "ids/s", 1)
