"""Matrix multiplication on one thread: GFLOP/s with the rows of a prompt, GB/s with those of decoding."""

import numpy as np
import pytest
from numba import njit

from nbgpt.abi.layout import LANES, PANELS
from nbgpt.backend.buffers import aligned_zeros
from nbgpt.kernels.matmul import MATMULS
from nbgpt.simd import at, data, kernel
from nbgpt.weights import NUMPY, matrix_shapes
from nbgpt.weights.bfloat16 import to_bfloat16


def random_matrix(random, dtype, n_in, n_out):
    """The tensors of a native matrix, as bytes; the values do not matter, their sizes do."""
    parts = []
    for name, (kind, shape) in matrix_shapes("w", dtype, n_in, n_out).items():
        n = int(np.prod(shape))
        if kind == "U8":
            parts.append(random.integers(0, 256, n, np.uint8))
        else:
            numbers = np.full(n, 0.01) if "." in name else random.standard_normal(n)
            values = to_bfloat16(numbers) if kind == "BF16" else numbers.astype(NUMPY[kind])
            parts.append(values.view(np.uint8))
    return [aligned(part) for part in parts]


def aligned(values):
    """A copy at the beginning of a cache line, where a native file's tensors and the buffers begin."""
    copy = aligned_zeros(values.shape, str(values.dtype))
    copy[...] = values
    return copy


def product(matmul, dtype, n_rows, n_in, n_out):
    """A call that multiplies packed rows by a matrix, the bytes of that matrix, and the array of its results."""
    random = np.random.default_rng(0)
    pack, multiply, whole, groups = matmul.pack_row, matmul.multiply, matmul.height, n_in // matmul.group
    multiply_whole, begin, end, value_bytes = matmul.multiply_whole, matmul.begin, matmul.end, matmul.value_bytes

    @kernel
    def row_tile(values, sums, scales, row):
        return (
            at(data(values), value_bytes * row * n_in),
            at(data(sums), 4 * row * groups),
            at(data(scales), 4 * row * groups),
        )

    @njit(error_model="numpy")
    def pack_all(x, values, sums, scales):
        for row in range(n_rows):
            first = row - row % whole
            tile = row_tile(values, sums, scales, first)
            pack(tile, row % whole, min(whole, n_rows - first), at(data(x), row * n_in), n_in)

    @njit(error_model="numpy")
    def multiply_all(out, values, sums, scales, w, w_scales, w_offsets):
        weights = data(w), data(w_scales), data(w_offsets)
        begin(n_rows)
        for panel in range(0, n_out // LANES, PANELS):
            corner, first_tile = at(data(out), panel * LANES), row_tile(values, sums, scales, 0)
            done = multiply_whole(corner, n_out, first_tile, n_rows // whole, weights, n_in, panel)
            for row in range(done * whole, n_rows, whole):
                tile, corner = row_tile(values, sums, scales, row), at(data(out), row * n_out + panel * LANES)
                multiply(corner, n_out, tile, min(whole, n_rows - row), weights, n_in, panel)
        end(n_rows)

    w = random_matrix(random, dtype, n_in, n_out)
    packed = tuple(aligned_zeros((4 * n_rows * n,), "uint8") for n in (n_in, groups, groups))
    pack_all(random.standard_normal((n_rows, n_in), np.float32), *packed)
    out = aligned_zeros((n_rows, n_out), "float32")
    operands = [*w, *[w[0]] * (3 - len(w))]
    return lambda: multiply_all(out, *packed, *operands), sum(part.nbytes for part in w), out


@pytest.mark.parametrize("dtype", MATMULS)
def test_matmul_of_a_prefill(rate, dtype):
    call, *_ = product(MATMULS[dtype], dtype, 504, 768, 3072)
    rate(call, "GFLOP/s", 2 * 504 * 768 * 3072 / 1e9)


@pytest.mark.parametrize("n_rows", [1, 8])
@pytest.mark.parametrize("dtype", MATMULS)
def test_matmul_of_decoding(rate, dtype, n_rows):
    call, n_bytes, _ = product(MATMULS[dtype], dtype, n_rows, 768, 50176)
    rate(call, "GB/s", n_bytes / 1e9)
