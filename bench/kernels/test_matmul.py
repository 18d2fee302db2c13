"""Matrix multiplication on one thread: GFLOP/s with the rows of a prompt, GB/s with those of decoding."""

import numpy as np
import pytest
from numba import njit

from nbgpt.abi.layout import LANES, PANELS
from nbgpt.kernels.matmul import MATMULS
from nbgpt.simd import at, data
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
    return parts


def product(dtype, n_rows, n_in, n_out):
    """A call that multiplies packed rows by a matrix, and the bytes of that matrix."""
    random, matmul = np.random.default_rng(0), MATMULS[dtype]
    pack, multiply, whole, groups = matmul.pack_row, matmul.multiply, matmul.height, n_in // matmul.group

    @njit(error_model="numpy")
    def pack_all(x, values, sums, scales):
        for row in range(n_rows):
            tile = row - row % whole
            place = (
                at(data(values), 4 * tile * n_in),
                at(data(sums), 4 * tile * groups),
                at(data(scales), 4 * tile * groups),
            )
            pack(place, row % whole, min(whole, n_rows - tile), at(data(x), row * n_in), n_in)

    @njit(error_model="numpy")
    def multiply_all(out, values, sums, scales, w, w_scales, w_offsets):
        weights = data(w), data(w_scales), data(w_offsets)
        for panel in range(0, n_out // LANES, PANELS):
            for tile in range(0, n_rows, whole):
                x = (
                    at(data(values), 4 * tile * n_in),
                    at(data(sums), 4 * tile * groups),
                    at(data(scales), 4 * tile * groups),
                )
                corner = at(data(out), tile * n_out + panel * LANES)
                multiply(corner, n_out, x, min(whole, n_rows - tile), weights, n_in, panel)

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
