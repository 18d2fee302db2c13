"""Packed rows of activations, read back and compared with their twins in NumPy."""

import functools

import numpy as np
import pytest
import reference
from numba import njit, types

from nbgpt.kernels import row_tiles
from nbgpt.kernels.row_tiles import X4, X8
from nbgpt.simd import at, data

HEIGHT = 5
MARGIN = 16  # bytes beyond what a kernel may write
PLANES = {"pack_int16_row": 2}


@functools.cache
def compiled(name):
    pack_row, planes = getattr(row_tiles, name), PLANES.get(name, 1)

    @njit(error_model="numpy")
    def run(rows, values, sums, scales):
        tile, n_in = (data(values), data(sums), data(scales)), rows.shape[1]
        for i in range(len(rows)):
            pack_row(tile, i * planes, len(rows) * planes, at(data(rows), i * n_in), n_in)

    return run


def packed(name, rows, group, value_bytes):
    """float32 [height, n_in] -> the bytes of the values, sums and scales of a row tile."""
    height, n_in = len(rows) * PLANES.get(name, 1), rows.shape[1]
    sizes = height * n_in * value_bytes, *(2 * [4 * height * (n_in // group)])
    parts = [np.full(size + MARGIN, 0xAB, np.uint8) for size in sizes]
    compiled(name)(np.ascontiguousarray(rows), *parts)
    assert all((part[size:] == 0xAB).all() for part, size in zip(parts, sizes, strict=True))
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]


def whole_numbers(values, value_type, height):
    """The values of a row tile as [height, n_in]; as words each four stand in the order 0, 2, 1, 3."""
    is_words = value_type == types.int16
    quads = values.view(np.int16 if is_words else np.int8).reshape(-1, height, 4)
    return (quads[..., [0, 2, 1, 3]] if is_words else quads).swapaxes(0, 1).reshape(height, -1)


def by_group(numbers, height):
    """Scales or sums, [n_groups, height] in a row tile, as [height, n_groups]."""
    return numbers.reshape(-1, height).T


def test_floats_are_copied(rng):
    rows = rng.standard_normal((HEIGHT, 33)).astype(np.float32)
    values, _, _ = packed("pack_float_row", rows, 33, 4)
    np.testing.assert_array_equal(values.view(np.float32).reshape(33, HEIGHT), rows.T)


def test_bfloat16_is_rounded_and_the_smallest_become_zero(rng):
    rows = (rng.standard_normal((HEIGHT, 64)) * 10.0 ** rng.integers(-16, 5, (HEIGHT, 64))).astype(np.float32)
    values, _, _ = packed("pack_bfloat16_row", rows, 32, 4)
    bits = rows.view(np.uint32).astype(np.int64)
    kept = np.abs(rows) >= np.float32(2.0**-48)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(values.view(np.float32).reshape(64, HEIGHT), np.where(kept, rounded, 0).T)
    assert 0 < kept.sum() < kept.size


def test_pairs_of_bfloat16_have_the_values_of_a_row_of_them(rng):
    rows = rng.standard_normal((HEIGHT, 64)).astype(np.float32)
    apart, _, _ = packed("pack_bfloat16_row", rows, 32, 4)
    pairs, _, _ = packed("pack_bfloat16_pairs", rows, 32, 2)
    words = pairs.view(np.uint32).reshape(-1, 2, HEIGHT)  # of four inputs: (0, 2), (1, 3), the first in the upper half
    quads = np.stack([words >> 16, words & 0xFFFF], axis=1).reshape(64, HEIGHT)
    np.testing.assert_array_equal(quads << 16, apart.view(np.uint32).reshape(64, HEIGHT))


@pytest.mark.parametrize(("dtype", "value_type"), [("int8", X8), ("int4", X4)])
def test_whole_numbers_are_rounded_half_to_even(rng, dtype, value_type):
    group = reference.GROUP[dtype]
    rows = rng.standard_normal((HEIGHT, 3 * group)).astype(np.float32)
    rows[0, : 2 * group] = np.concatenate([np.arange(group) - 20.5, np.arange(group) - 11.0])
    rows[0, 0], rows[0, group] = -127, 127  # so that the scale of a group is 1
    rows[1, group : 2 * group] = 0
    values, sums, scales = packed(f"pack_{dtype}_row", rows, group, value_type.bitwidth // 8)
    expected, largest = reference.quantize_rows(rows, group)
    expected = expected.reshape(HEIGHT, -1)
    np.testing.assert_array_equal(whole_numbers(values, value_type, HEIGHT), expected)
    largest_127 = largest.reshape(HEIGHT, -1) / np.float32(127)
    np.testing.assert_array_equal(by_group(scales.view(np.float32), HEIGHT), largest_127)
    totals = expected.reshape(HEIGHT, -1, group).sum(2)
    if dtype == "int8":
        np.testing.assert_array_equal(by_group(sums.view(np.int32), HEIGHT), -128 * totals)
    else:
        np.testing.assert_array_equal(by_group(sums.view(np.float32), HEIGHT), largest_127 * totals.astype(np.float32))
    assert set(expected[0, 1:group] % 2) == {0}


def test_sixteen_bits_are_two_rows_of_eight(rng):
    """Values are within half a step of the lower row; each row has the sum of its own numbers."""
    rows = (rng.standard_normal((HEIGHT, 128)) * 10.0 ** rng.integers(-3, 3, (HEIGHT, 1))).astype(np.float32)
    values, sums, scales = packed("pack_int16_row", rows, 64, X8.bitwidth // 8)
    stored, steps = whole_numbers(values, X8, 2 * HEIGHT), by_group(scales.view(np.float32), 2 * HEIGHT)
    for i, row in enumerate(rows):
        numbers, step = stored[2 * i : 2 * i + 2].reshape(2, -1, 64), steps[2 * i : 2 * i + 2, :, None]
        found = (numbers.astype(np.float64) * step).sum(0).reshape(-1)
        assert (np.abs(found - row).reshape(-1, 64) <= 0.501 * step[1]).all()
        np.testing.assert_array_equal(
            by_group(sums.view(np.int32), 2 * HEIGHT)[2 * i : 2 * i + 2], -128 * numbers.astype(np.int64).sum(2)
        )
