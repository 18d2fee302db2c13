"""Pairs of bfloat16, and their dot products against two multiply-adds."""

import numpy as np
import pytest
import reference
from numba import njit

from nbgpt.abi.layout import LANES
from nbgpt.abi.targets import current_target
from nbgpt.simd import (
    data,
    dot_pairs,
    even_pairs,
    load,
    load_tile,
    odd_pairs,
    pair_bfloats,
    row_tile,
    store_apart,
    store_tile,
)

ROWS = 3


def words_of(upper, lower):
    return np.asarray(upper, np.uint32) << 16 | np.asarray(lower, np.uint32)


def bfloats(rng, *shape):
    """Random bfloat16 of many magnitudes, as float32."""
    numbers = rng.standard_normal(shape) * 2.0 ** rng.integers(-20, 20, shape)
    return reference.bfloat16(numbers.astype(np.float32), 0)


def bits(floats):
    return floats.view(np.uint32) >> 16


@njit
def join(out, x):
    store_apart(data(out), 0, 1, pair_bfloats(load(data(x), 0), load(data(x), LANES)))


def test_the_even_inputs_of_four_and_the_odd_ones_become_pairs(rng):
    x, out = bfloats(rng, 2 * LANES), np.zeros(LANES, np.uint32)
    join(out, x)
    quads = bits(x).reshape(-1, 4)
    np.testing.assert_array_equal(out.reshape(-1, 2), words_of(quads[:, :2], quads[:, 2:]))


@njit(error_model="numpy")
def dot(out, x, w):
    this, other = row_tile(data(w), 0, LANES, 2), row_tile(data(w), 2 * LANES, LANES, 2)
    sums = load_tile(data(out), 0, 2 * LANES, LANES, ROWS, 2)
    even = dot_pairs(sums, data(x), 0, 2, even_pairs(this, other))
    odd = dot_pairs(sums, data(x), 1, 2, odd_pairs(this, other))
    store_tile(data(out), 0, 2 * LANES, LANES, even, 2)
    store_tile(data(out), 2 * ROWS * LANES, 2 * LANES, LANES, odd, 2)


@pytest.mark.skipif(not current_target().bf16, reason="these kernels have no vpdpbf16ps")
def test_a_dot_product_of_pairs_is_two_multiply_adds_in_their_order(rng):
    for _ in range(50):
        x, w = bfloats(rng, ROWS, 4), bfloats(rng, 4, 2 * LANES)
        start = bfloats(rng, ROWS, 2 * LANES) * np.float32(1 + 2.0**-20)
        pairs = words_of(bits(x)[:, :2], bits(x)[:, 2:])
        rows_of_weights = words_of(bits(w)[1::2], bits(w)[::2])  # (0, 1) and (2, 3), the first in the lower half
        out = np.stack([start, start])
        dot(out, pairs, rows_of_weights)
        for chain in range(2):
            expected = start
            for k in (chain, chain + 2):
                expected = reference.fma(x[:, k, None], w[k], expected)
            np.testing.assert_array_equal(out[chain], expected)
