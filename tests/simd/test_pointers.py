"""Pointers move by elements, keep their address when they are cast, and are read from memory."""

import numpy as np
from numba import njit, types

from nbgpt.simd import at, cast, data, pointer_in, stack_bytes


@njit(error_model="numpy")
def read(floats, addresses):
    third = at(data(floats), 3)
    bits = cast(third, types.int32)
    found = pointer_in(data(addresses), 1, types.float32)
    return third[0], third[-1], bits[0], bits[1], found[0], found[2]


def test_addresses(rng):
    floats, other = rng.standard_normal((2, 6), np.float32)
    addresses = np.array([0, other.ctypes.data])
    bits = floats.view(np.int32)
    assert read(floats, addresses) == (floats[3], floats[2], bits[3], bits[4], other[0], other[2])


@njit(error_model="numpy")
def write(out, value):
    at(data(out), 2)[1] = value


def test_a_write_goes_to_the_array():
    out = np.zeros(5, np.int64)
    write(out, 7)
    assert out.tolist() == [0, 0, 0, 7, 0]


@njit(error_model="numpy")
def reverse(out, x):
    space, other = stack_bytes(64), stack_bytes(1000)
    for i in range(64):
        space[i], other[i] = x[i], 0
    for i in range(64):
        out[i] = space[63 - i]


def test_the_stack_lends_bytes(rng):
    x, out = rng.integers(0, 256, 64, np.uint8), np.zeros(64, np.uint8)
    reverse(out, x)
    np.testing.assert_array_equal(out, x[::-1])
