"""Operations on registers, lane by lane, against NumPy."""

import math

import numpy as np
import pytest
import reference
from numba import njit, types

from nbgpt import simd
from nbgpt.abi.targets import current_target
from nbgpt.simd import (
    bfloat_at,
    data,
    first,
    half_at,
    keep_first,
    largest,
    load,
    put,
    splat,
    square_root,
    store,
    store_apart,
    store_bfloats,
    store_quads,
    total,
)

N = 16
AWKWARD = np.array(
    [0, -0.0, 1e-45, 3e38, -3e38, np.inf, -np.inf, 0.5, 1.5, 2.5, -0.5, -1.5, 127, -128, 1, -1], np.float32
)


def rows(rng, n):
    """Random registers and an awkward one."""
    return np.concatenate(
        [rng.standard_normal((n, 4, N), np.float32), np.stack([np.roll(AWKWARD, i) for i in range(4)])[None]]
    )


def apply(operation, x, y, z):
    @njit(error_model="numpy")
    def run(out, x, y, z):
        store(data(out), 0, operation(load(data(x), 0), load(data(y), 0), load(data(z), 0)))

    out = np.zeros(N, np.float32)
    run(out, x, y, z)
    return out


add = njit(lambda x, y, z: x + y)
subtract = njit(lambda x, y, z: x - y)
multiply = njit(lambda x, y, z: x * y)
divide = njit(lambda x, y, z: x / y)
_maximum, _minimum, _absolute, _floor, _round_even = (
    simd.maximum,
    simd.minimum,
    simd.absolute,
    simd.floor,
    simd.round_even,
)
OPERATIONS = {
    "add": (add, lambda x, y: x + y),
    "subtract": (subtract, lambda x, y: x - y),
    "multiply": (multiply, lambda x, y: x * y),
    "divide": (divide, lambda x, y: x / y),
    "maximum": (njit(lambda x, y, z: _maximum(x, y)), np.maximum),
    "minimum": (njit(lambda x, y, z: _minimum(x, y)), np.minimum),
    "absolute": (njit(lambda x, y, z: _absolute(x)), lambda x, y: np.abs(x)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_arithmetic_is_that_of_float32(rng, name):
    operation, twin = OPERATIONS[name]
    for x, y, z, _ in rows(rng, 3):
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(apply(operation, x, y, z), twin(x, y))


@pytest.mark.parametrize(("operation", "twin"), [(_floor, np.floor), (_round_even, np.rint)])
def test_rounding_to_integers(rng, operation, twin):
    rounded = njit(lambda x, y, z: operation(x))
    for scale in (1, 100, 2**21):
        x = np.clip(rng.standard_normal(N, np.float32), -1.9, 1.9) * np.float32(scale)
        x[:6] = -0.5, 0.5, 1.5, -1.5, 2.5, -2.0
        np.testing.assert_array_equal(apply(rounded, x, x, x), twin(x))


_fma = simd.fma


def test_a_fused_multiply_add_rounds_once():
    """(1 + e)(1 - e) - 1 = -e^2, which is lost if the product is rounded."""
    e = np.full(N, 2.0**-13, np.float32)
    out = apply(njit(lambda x, y, z: _fma(x, y, z)), 1 + e, 1 - e, -np.ones(N, np.float32))
    assert (out == (-(2.0**-26) if current_target().fma else 0)).all()


@njit(error_model="numpy")
def numbers(x):
    register = load(data(x), 0)
    return first(register), total(register), largest(register), square_root(x[1])


def test_one_number_of_a_register(rng):
    x = np.abs(rng.standard_normal(N, np.float32))
    sums = x
    while len(sums) > 1:  # halves are added, as a tree
        sums = sums[: len(sums) // 2] + sums[len(sums) // 2 :]
    assert numbers(x) == (x[0], sums[0], x.max(), np.float32(math.sqrt(x[1])))


@njit(error_model="numpy")
def kept(out, x, count):
    store(data(out), 0, keep_first(load(data(x), 0), count, splat(types.float32(-3))))


@pytest.mark.parametrize("count", [-5, 0, 1, 15, 16, 20])
def test_the_first_lanes_are_kept(rng, count):
    x, out = rng.standard_normal(N, np.float32), np.zeros(N, np.float32)
    kept(out, x, count)
    np.testing.assert_array_equal(out, np.where(np.arange(N) < count, x, -3))


_scale_by_power = simd.scale_by_power


def test_powers_of_two(rng):
    x = (1 + rng.random(N)).astype(np.float32)
    n = np.array([-126, -100, -1, 0, 1, 2, 50, 127] * 2, np.float32)
    out = apply(njit(lambda x, n, _: _scale_by_power(x, n)), x, n, n)
    np.testing.assert_array_equal(out, np.ldexp(x, n.astype(int)))


# --- Half floats ------------------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def store_all(halves, values):
    for i in range(len(values)):
        put(data(halves), i, values[i])


@njit(error_model="numpy")
def load_all(out, halves):
    for i in range(0, len(out), N):
        store(data(out), i, load(data(halves), i))
    different = 0
    for i in range(len(out)):
        different += half_at(data(halves), i) != out[i]
    return different


def test_half_floats_are_read_exactly():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = np.where(np.isfinite(halves), halves, np.float16(0))
    out = np.zeros(len(halves), np.float32)
    assert load_all(out, halves.view(np.uint16)) == 0
    np.testing.assert_array_equal(out, halves.astype(np.float32))


def test_half_floats_are_the_nearest():
    """As NumPy rounds, for all float16 and what lies between them; what is too large becomes the largest."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (halves[:-1] + halves[1:]) / 2
    values = np.concatenate(
        [halves, between, np.nextafter(between, 0), np.nextafter(between, np.inf, dtype=np.float32)]
    )
    values = np.concatenate([values, -values, [65519, 65520, 1e30, -np.inf, 1e-30, -1e-44]]).astype(np.float32)
    stored = np.zeros(len(values), np.uint16)
    store_all(stored, values)
    np.testing.assert_array_equal(stored, np.clip(values, -65504, 65504).astype(np.float16).view(np.uint16))
    store_all(stored[:1], np.array([np.nan], np.float32))
    assert np.isnan(stored.view(np.float16)[0])


# --- bfloat16 ---------------------------------------------------------------------------------------------------------

_round_bfloat, _zero_below = simd.round_bfloat, simd.zero_below


@njit(error_model="numpy")
def bfloats_at(out, bits):
    for i in range(len(bits)):
        out[i] = bfloat_at(data(bits), i)


def test_bfloat16_is_the_upper_half_of_a_float32():
    bits, out = np.arange(1 << 16, dtype=np.uint16), np.zeros(1 << 16, np.float32)
    bfloats_at(out, bits)
    np.testing.assert_array_equal(out.view(np.uint32), bits.astype(np.uint32) << 16)


@njit(error_model="numpy")
def round_all(out, x):
    for i in range(0, len(x), N):
        store(data(out), i, _round_bfloat(load(data(x), i)))


def test_bfloat16_is_the_nearest():
    """For all of one sign, the halves between them, and their neighbours; beyond the largest comes infinity."""
    exact = (np.arange(0x80, 0x7F80, dtype=np.uint32) << 16).view(np.float32)
    half = (exact.view(np.uint32) + 0x8000).view(np.float32)
    x = np.concatenate([exact, half, np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(np.inf))])
    for sign in (1, -1):
        out = np.zeros_like(x)
        round_all(out, sign * x)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(out, reference.bfloat16(sign * x, 0))


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFC00000])
def test_rounding_leaves_nan_and_infinity(bits):
    x, out = np.full(N, np.inf, np.float32), np.zeros(N, np.float32)
    x[1::2] = np.array([bits], np.uint32).view(np.float32)
    round_all(out, x)
    assert (out[::2] == np.inf).all()
    assert np.isnan(out[1::2]).all()


def test_small_numbers_become_zero():
    below = njit(lambda x, least, _: _zero_below(x, least))
    out = apply(below, AWKWARD, np.full(N, 0.5, np.float32), AWKWARD)
    np.testing.assert_array_equal(out, np.where(np.abs(AWKWARD) < 0.5, 0, AWKWARD))
    nothing = np.full(N, np.nan, np.float32)
    assert np.isnan(apply(below, nothing, AWKWARD, nothing)).all()


@njit(error_model="numpy")
def apart(out, start, stride, x):
    store_apart(data(out), start, stride, load(data(x), 0))


def test_lanes_are_written_apart(rng):
    x, out = rng.standard_normal(N, np.float32), np.full(60, 7, np.float32)
    apart(out, 2, 3, x)
    expected = np.full(60, 7, np.float32)
    expected[2 : 2 + 3 * N : 3] = x
    np.testing.assert_array_equal(out, expected)


@njit(error_model="numpy")
def halves(out, i, x):
    store_bfloats(data(out), i, load(data(x), 0))


def test_bfloat16_is_written_in_16_bits(rng):
    x, out = reference.bfloat16(rng.standard_normal(N), 0), np.full(N + 5, 7, np.uint16)
    halves(out, 3, x)
    np.testing.assert_array_equal(out[3 : 3 + N], x.view(np.uint32) >> 16)
    assert (out[[0, 1, 2, -2, -1]] == 7).all()


# --- Quads ------------------------------------------------------------------------------------------------------------


@njit(error_model="numpy")
def quads(out, start, stride, x):
    store_quads(data(out), start, stride, load(data(x), 0))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_quads_of_integers(rng, dtype):
    x = rng.integers(-128, 128, N)
    out = np.full(40, 77, dtype)
    quads(out, 3, 9, x.astype(np.float32))
    expected = np.full(40, 77, np.int16 if dtype == np.int16 else np.int8)
    for quad in range(4):
        order = [0, 2, 1, 3] if dtype == np.int16 else [0, 1, 2, 3]
        expected[3 + 9 * quad : 7 + 9 * quad] = x[4 * quad : 4 * quad + 4][order]
    np.testing.assert_array_equal(out.view(expected.dtype), expected)
