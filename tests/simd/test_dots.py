"""Integer dot products are exact, on every target, up to the largest weights and activations."""

import numpy as np
import pytest
from numba import njit, types

from nbgpt.abi.layout import GROUP_INT4, LANES
from nbgpt.simd import (
    cast,
    data,
    dot_bytes,
    dot_nibbles,
    high_nibbles,
    load,
    low_nibbles,
    row_tile,
    scale_tile,
    splat_tile,
    store_quads,
    store_tile,
    zero_dots,
    zero_tile,
)
from nbgpt.simd.dots import ADDED, BYTES, NIBBLES

_X8, _X4 = BYTES.activations, NIBBLES.activations


@njit(error_model="numpy")
def bytes_product(out, x, packed, w, start, ones):  # x [n_in], w [n_in / 4, LANES, 4] + 128
    values = cast(data(packed), _X8)
    for k in range(0, len(x), LANES):
        store_quads(values, k, 4, load(data(x), k))
    dots = splat_tile(data(start), 0, 1, 1, 1)
    for k in range(0, len(x), 4):
        dots = dot_bytes(dots, values, k, 4, row_tile(data(w), k * LANES, LANES, 1))
    store_tile(
        data(out),
        0,
        LANES,
        LANES,
        scale_tile(zero_tile(1, 1), dots, data(ones), 0, 1, row_tile(data(ones), 0, 1, 1)),
        1,
    )


@njit(error_model="numpy")
def nibbles_product(out, x, packed, w, ones):  # x [n_in], w [n_in / 8, LANES, 4]
    values = cast(data(packed), _X4)
    for k in range(0, len(x), LANES):
        store_quads(values, k, 4, load(data(x), k))
    dots = zero_dots(1, 1)
    for k in range(0, len(x), 8):
        both = row_tile(data(w), k * LANES // 2, LANES, 1)
        dots = dot_nibbles(dots, values, k, 4, low_nibbles(both))
        dots = dot_nibbles(dots, values, k + 4, 4, high_nibbles(both))
    store_tile(
        data(out),
        0,
        LANES,
        LANES,
        scale_tile(zero_tile(1, 1), dots, data(ones), 0, 1, row_tile(data(ones), 0, 1, 1)),
        1,
    )


ONES = np.ones(LANES, np.float32)


def cases(rng, n_in, lowest, highest):
    """Activations, and weights [LANES, n_in]: random ones and the extremes of both."""
    yield rng.integers(-128, 128, n_in), rng.integers(lowest, highest + 1, (LANES, n_in))
    for x in (-128, 127):
        for w in (lowest, highest):
            yield np.full(n_in, x), np.full((LANES, n_in), w)


def test_bytes(rng):
    for x, w in cases(rng, 64, -127, 127):
        stored = (w + 128).astype(np.uint8).reshape(LANES, 16, 4).swapaxes(0, 1).copy()
        out, packed = np.zeros(LANES, np.float32), np.zeros(2 * 64, np.uint8)
        start = np.array([-ADDED * x.sum()], np.int32)
        bytes_product(out, x.astype(np.float32), packed, stored, start, ONES)
        np.testing.assert_array_equal(out, w @ x)


def test_nibbles(rng):
    for x, w in cases(rng, GROUP_INT4, 0, 15):
        parts = w.reshape(LANES, GROUP_INT4 // 8, 2, 4).swapaxes(0, 1)  # the lower half of a byte is the first four's
        stored = np.ascontiguousarray(parts[:, :, 0] | parts[:, :, 1] << 4, np.uint8)
        out, packed = np.zeros(LANES, np.float32), np.zeros(2 * GROUP_INT4, np.uint8)
        nibbles_product(out, x.astype(np.float32), packed, stored, ONES)
        np.testing.assert_array_equal(out, w @ x)


@pytest.mark.parametrize("dots", [BYTES, NIBBLES])
def test_activations_are_bytes_or_words(dots):
    assert dots.activations in (types.uint8, types.int16)
