"""Matmul kernels against their twins: to the bit, since a twin adds in the same order."""

import functools

import numpy as np
import pytest
import reference
from numba import njit
from reference import Bfloat16, Quantized, QuantizedHead, padded

from nbgpt.abi.layout import LANES, PANELS, ROW_TILE
from nbgpt.abi.targets import current_target
from nbgpt.kernels.matmul import HEAD_MATMULS, MATMULS, TILES
from nbgpt.simd import at, data

KINDS = {**MATMULS, "int8 head": HEAD_MATMULS["int8"]}
SHAPES = [(1, 1), (3, 33), (32, 32), (65, 61), (100, 17), (200, 100)]  # n_in, n_out
MARGIN = 16  # floats and bytes beyond what a kernel may write


@functools.cache
def compiled(kind):
    kernels = KINDS[kind]
    pack_row, multiply, whole, planes = kernels.pack_row, kernels.multiply, kernels.height, kernels.planes

    @njit(error_model="numpy")
    def run(out, n_out, x, packed, w):
        n_rows, n_in = len(x) * planes, x.shape[1]
        stride = out.shape[1]
        tile = data(packed[0]), data(packed[1]), data(packed[2])
        weights = data(w[0]), data(w[1]), data(w[2])
        for first in range(0, n_rows, whole):
            height = min(whole, n_rows - first)
            for place in range(0, height, planes):
                pack_row(tile, place, height, at(data(x), (first + place) // planes * n_in), n_in)
            for panel in range(0, n_out // LANES, PANELS):
                corner = at(data(out), first * stride + panel * LANES)
                multiply(corner, stride, tile, height, weights, n_in, panel)

    return run


def product(kind, x, w):  # [n_rows, n_in], native arrays of [n_out, n_in] -> [n_rows, n_out padded], row tile
    """x @ w.T by the kernels, which must write to their part of the memory alone."""
    matmul, n_in = KINDS[kind], padded(x.shape[1], KINDS[kind].group)
    source = np.zeros((len(x), n_in), np.float32)
    source[:, : x.shape[1]] = x
    n_rows, n_out = matmul.planes * len(x), LANES * len(w[0])
    height = min(matmul.height, n_rows)
    sizes = height * n_in * matmul.value_bytes, *(2 * [4 * height * (n_in // matmul.group)])
    packed = tuple(np.full(size + MARGIN, 0xAB, np.uint8) for size in sizes)
    out = np.full((n_rows + 1, n_out + MARGIN), np.nan, np.float32)
    flat = [np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in w]
    compiled(kind)(out, n_out, source, packed, tuple((flat + 2 * [np.zeros(1, np.uint8)])[:3]))
    assert np.isnan(out[-1]).all()
    assert np.isnan(out[:, n_out:]).all()
    assert all((part[size:] == 0xAB).all() for part, size in zip(packed, sizes, strict=True))
    planes = [out[plane : n_rows : matmul.planes, :n_out] for plane in range(matmul.planes)]
    return functools.reduce(np.add, planes), packed


def float_matrix(dtype, weights):  # [n_out, n_in] -> native arrays
    n_out, n_in = weights.shape
    values = np.zeros((padded(n_out, 32) // LANES, n_in, LANES), dtype)
    values[reference.place_float(*np.indices(weights.shape))] = weights
    return [values]


def bfloat16_matrix(weights):  # [n_out, n_in] of bfloat16 -> native arrays
    n_out, n_in = weights.shape
    values = np.zeros((padded(n_out, 32) // LANES, padded(n_in, 32) // 2, LANES, 2), np.uint16)
    values[reference.place_bfloat16(*np.indices(weights.shape))] = weights.view(np.uint32) >> 16
    return [values]


def quantized_matrix(dtype, numbers, scales, offsets):  # [n_out, n_in], [n_out, n_groups] -> native arrays
    n_out, n_in = numbers.shape
    panels, group = padded(n_out, 32) // LANES, reference.GROUP[dtype]
    arrays = [np.zeros((panels, n_in // group, LANES), np.float16) for _ in range(2)]
    for array, parts in zip(arrays, (scales, offsets), strict=True):
        array[reference.place_scale(*np.indices(parts.shape))] = parts
    if dtype == "int8":
        values = np.full((panels, n_in // 4, LANES, 4), 128, np.uint8)
        values[reference.place_int8(*np.indices(numbers.shape))] = numbers + 128
        return [values, arrays[0]]
    values = np.zeros((panels, n_in // 8, LANES, 4), np.uint8)
    place, shift = reference.place_int4(*np.indices(numbers.shape))
    np.bitwise_or.at(values, place, (numbers << shift).astype(np.uint8))
    return [values, *arrays]


def random_matrix(rng, kind, n_in, n_out):
    """Random weights as (native arrays, what the twin multiplies by)."""
    dtype = kind.split()[0]
    if dtype in ("float32", "float16"):
        weights = rng.standard_normal((n_out, n_in), np.float32).astype(dtype)
        return float_matrix(dtype, weights), weights.astype(np.float32)
    if dtype == "bfloat16":
        weights = reference.bfloat16(rng.standard_normal((n_out, n_in), np.float32), reference.LEAST_WEIGHT)
        return bfloat16_matrix(weights), Bfloat16(weights)
    group = reference.GROUP[dtype]
    size = n_out, padded(n_in, group)
    numbers = rng.integers(-127, 128, size) if dtype == "int8" else rng.integers(0, 16, size)
    scales, offsets = (rng.standard_normal((2, n_out, size[1] // group)) / 50).astype(np.float16)
    twin = (QuantizedHead if kind == "int8 head" else Quantized)(
        numbers.reshape(n_out, -1, group),
        scales.astype(np.float32),
        offsets.astype(np.float32) if dtype == "int4" else None,
        n_in,
    )
    return quantized_matrix(dtype, numbers, scales, offsets), twin


def twin_product(x, w):
    if not isinstance(w, np.ndarray):
        return x @ w
    out = np.zeros((len(x), len(w)), np.float32)
    for k in range(x.shape[1]):  # one chain of additions, in the order of the inputs
        out = reference.fma(x[:, k, None], w[:, k], out)
    return out


def check(out, expected):
    """The same bits; without an FMA instruction a kernel rounds twice where the twin rounds once."""
    if current_target().fma:
        np.testing.assert_array_equal(out[:, : expected.shape[1]], expected)
    else:
        np.testing.assert_allclose(out[:, : expected.shape[1]], expected, atol=1e-5 * np.abs(expected).max())


def test_heights_divide_as_the_kernels_assume():
    assert all(tiles.height % tiles.whole[0] == 0 for tiles in TILES.values())
    assert all(matmul.height <= ROW_TILE and matmul.height % matmul.planes == 0 for matmul in KINDS.values())


@pytest.mark.parametrize(("n_in", "n_out"), SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_height_has_the_bits_of_the_twin(rng, kind, n_in, n_out):
    native, w = random_matrix(rng, kind, n_in, n_out)
    x = rng.standard_normal((KINDS[kind].height + 1, n_in), np.float32)
    expected = twin_product(x, w)
    alone = np.concatenate([product(kind, row[None], native)[0] for row in x])
    for height in range(1, len(x) + 1):
        out, _ = product(kind, x[:height], native)
        check(out, expected[:height])
        np.testing.assert_array_equal(out, alone[:height])  # on any CPU: rows have nothing to do with each other
        np.testing.assert_array_equal(out[:, n_out:], 0)  # later phases rely on zeros in the padding


def awkward_rows(rng, n_in):
    x = rng.standard_normal((8, n_in), np.float32)
    x[0] = 0
    x[1] = -0.0
    x[2, 5] = 3e3  # an outlier channel of a trained GPT-2
    x[3] *= 1e-39  # denormal
    x[4, :64] = 1e-44  # groups of which nothing is left
    x[5] = np.float32(1e-30)
    x[6] *= 1e30
    x[7] = np.where(np.arange(n_in) % 2, 127, -127)
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_awkward_rows(rng, kind):
    native, w = random_matrix(rng, kind, 130, 40)
    x = awkward_rows(rng, 130)
    expected = twin_product(x, w)
    assert np.isfinite(expected).all()
    check(product(kind, x, native)[0], expected)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_whole_numbers_at_their_limits_do_not_overflow(dtype):
    n_in, n_out, group = 128, 32, reference.GROUP[dtype]
    highest, lowest = (127, -127) if dtype == "int8" else (15, 0)
    numbers = np.full((n_out, n_in), highest)
    numbers[1::2] = lowest
    scales, offsets = np.ones((2, n_out, n_in // group))
    native = quantized_matrix(dtype, numbers, scales, offsets)
    x = np.full((2, n_in), 127, np.float32)
    x[1] = -127
    out, _ = product(dtype, x, native)
    weights = numbers + (offsets[0, 0] if dtype == "int4" else 0)
    np.testing.assert_array_equal(out, x.astype(np.int64) @ weights.T)


def test_no_sum_of_bfloat16_is_denormal():
    """The smallest numbers with the smallest difference of two products leave the least normal float32."""
    next_to_1, x, w = 1 + 2.0**-7, np.zeros((1, 32), np.float32), np.zeros((32, 32), np.float32)
    x[0, :3] = np.array([next_to_1, 0, 1]) * reference.LEAST_ACTIVATION
    w[:, :3] = np.array([next_to_1, 0, -1 - 2.0**-6]) * reference.LEAST_WEIGHT
    out, _ = product("bfloat16", x, bfloat16_matrix(w))
    np.testing.assert_array_equal(out, np.finfo(np.float32).tiny)
    below = np.nextafter(np.full((1, 32), reference.LEAST_ACTIVATION, np.float32), np.float32(0))
    out, _ = product("bfloat16", below, bfloat16_matrix(np.ones((32, 32), np.float32)))
    np.testing.assert_array_equal(out, 0)


def test_a_block_of_bfloat16_is_two_chains():
    """1 + 2^-24 + 2^-24 is 1 one after the other, and more if the small ones come first: each order has its sum."""
    tiny = 2.0**-24
    for small, expected in (((2, 4), 1), ((1, 3), 1 + 2 * tiny), ((1, 2), 1), ((33, 35), 1 + 2 * tiny), ((32, 64), 1)):
        w = np.zeros((32, 96), np.float32)
        w[:, 0], w[:, list(small)] = 1, tiny
        out, _ = product("bfloat16", np.ones((1, 96), np.float32), bfloat16_matrix(w))
        np.testing.assert_array_equal(out, np.float32(expected))


def test_every_finite_half_float_is_read_exactly():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = np.where(np.isfinite(halves), halves, np.float16(0))
    out, _ = product("float16", np.ones((1, 1), np.float32), float_matrix("float16", halves[:, None]))
    np.testing.assert_array_equal(out[0], halves.astype(np.float32))
