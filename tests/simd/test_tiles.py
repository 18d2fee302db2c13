"""Tiles of registers against sums in NumPy."""

import itertools

import numpy as np
import pytest
import reference
from numba import njit

from nbgpt.abi.layout import LANES
from nbgpt.abi.targets import current_target
from nbgpt.simd import (
    add_dots,
    add_tile,
    ahead_tile,
    data,
    even_bfloats,
    fma_tile,
    load_dots,
    load_tile,
    odd_bfloats,
    row_tile,
    scale_tile,
    store_bytes,
    store_tile,
    stream_tile,
    zero_tile,
)

READS = {"row": row_tile, "ahead": ahead_tile, "stream": stream_tile}
N_IN = 5


def product(rows, columns, read):
    @njit(error_model="numpy")
    def run(out, x, w):
        tile = zero_tile(rows, columns)
        for k in range(N_IN):
            tile = fma_tile(tile, data(x), k, N_IN, read(data(w), k * columns * LANES, LANES, columns))
        store_tile(data(out), 1, out.shape[1], LANES, tile, columns)

    return run


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 2), (3, 1), (4, 2), (12, 2)])
@pytest.mark.parametrize("read", READS)
def test_a_product(rng, read, rows, columns):
    x = rng.standard_normal((rows, N_IN), np.float32)
    w = rng.standard_normal((N_IN, columns * LANES), np.float32)
    out = np.full((rows, columns * LANES + 3), np.nan, np.float32)
    product(rows, columns, READS[read])(out, x, w)
    expected = np.zeros((rows, columns * LANES), np.float32)
    for k in range(N_IN):
        expected = reference.fma(x[:, k, None], w[k], expected)
    written = out[:, 1 : 1 + columns * LANES]
    if current_target().fma:
        np.testing.assert_array_equal(written, expected)
    np.testing.assert_allclose(written, expected, atol=1e-6)
    assert np.isnan(out[:, 0]).all()
    assert np.isnan(out[:, 1 + columns * LANES :]).all()


def test_half_floats_widen(rng):
    w = rng.standard_normal((N_IN, LANES)).astype(np.float16)
    out = np.zeros((1, LANES + 1), np.float32)
    product(1, 1, row_tile)(out, np.ones((1, N_IN), np.float32), w.view(np.uint16))
    np.testing.assert_allclose(out[0, 1:], w.astype(np.float64).sum(axis=0), atol=1e-6)


def test_pairs_of_bfloat16(rng):
    @njit(error_model="numpy")
    def run(out, pairs):
        words = row_tile(data(pairs), 0, LANES, 2)
        store_tile(data(out), 0, 0, LANES, even_bfloats(words), 2)
        store_tile(data(out), 2 * LANES, 0, LANES, odd_bfloats(words), 2)
        store_tile(data(out), 4 * LANES, 0, LANES, add_tile(even_bfloats(words), odd_bfloats(words)), 2)

    pairs = (rng.standard_normal((2 * LANES, 2), np.float32).view(np.uint32) >> 16).astype(np.uint16)
    out = np.zeros((3, 2 * LANES), np.float32)
    run(out, pairs.view(np.uint32).reshape(-1))
    even, odd = (pairs.astype(np.uint32) << 16).view(np.float32).T
    np.testing.assert_array_equal(out, [even, odd, even + odd])


def test_reads_differ_in_their_prefetches_alone(rng):
    x, w = rng.standard_normal((2, N_IN), np.float32), rng.standard_normal((N_IN, 2 * LANES), np.float32)
    outs = []
    for read in READS.values():
        outs.append(np.zeros((2, 2 * LANES + 1), np.float32))
        product(2, 2, read)(outs[-1], x, w)
    assert all(np.array_equal(*pair) for pair in itertools.pairwise(outs))


@njit(error_model="numpy")
def copy(out, x):
    store_tile(data(out), 1, 70, LANES, load_tile(data(x), 2, 64, LANES, 3, 2), 2)


def test_a_tile_is_loaded_as_it_is_stored(rng):
    x, out = rng.standard_normal((3, 64), np.float32), np.full((3, 70), np.nan, np.float32)
    copy(out, x)
    np.testing.assert_array_equal(out[:, 1 : 1 + 2 * LANES], x[:, 2 : 2 + 2 * LANES])
    assert np.isnan(out[:, 0]).all()
    assert np.isnan(out[:, 1 + 2 * LANES :]).all()


@njit(error_model="numpy")
def add(out, x, y, ones):
    dots = add_dots(load_dots(data(x), 3, 40, LANES, 2, 2), load_dots(data(y), 0, LANES, 32, 2, 2))
    scales = row_tile(data(ones), 0, LANES, 2)
    store_tile(data(out), 0, 32, LANES, scale_tile(zero_tile(2, 2), dots, data(ones), 0, 1, scales), 2)


def test_whole_numbers_are_loaded_and_added(rng):
    x, y = rng.integers(-(2**22), 2**22, (2, 40), np.int32), rng.integers(-(2**22), 2**22, (2, 2, LANES), np.int32)
    out = np.zeros((2, 32), np.float32)
    add(out, x, y, np.ones(32, np.float32))
    np.testing.assert_array_equal(out, x[:, 3:35] + y.swapaxes(0, 1).reshape(2, 32))  # y [columns, rows, lanes]


@njit(error_model="numpy")
def copy_bytes(out, x):
    store_bytes(data(out), 3, row_tile(data(x), 1, 70, 2))


def test_bytes_are_stored(rng):
    x, out = rng.integers(0, 256, 200, np.uint8), np.zeros(140, np.uint8)
    copy_bytes(out, x)
    np.testing.assert_array_equal(out, [*(3 * [0]), *x[1:65], *x[71:135], *(9 * [0])])
