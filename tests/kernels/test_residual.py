"""Additions to the residual stream: to the bit."""

import numpy as np
import pytest
from numba import njit

from nbgpt.kernels.residual import add, add_residual
from nbgpt.simd import data


@njit(error_model="numpy")
def sums(x, branch, bias):
    add_residual(data(x), data(branch), data(bias), len(x))
    add(data(branch), data(bias), len(x))


@pytest.mark.parametrize("n", [16, 48, 1600])
def test_additions_to_the_residual_stream(rng, n):
    x, branch, bias = 1000 * rng.standard_normal((3, n), np.float32)
    expected = x + (branch + bias), branch + bias
    sums(x, branch, bias)
    np.testing.assert_array_equal((x, branch), expected)
