"""LayerNorm of a row against its formula."""

import numpy as np
import pytest
import reference
from numba import njit
from reference import padded

from nbgpt.kernels.layernorm import layer_norm
from nbgpt.simd import data


@njit(error_model="numpy")
def normed(out, x, gain, bias, n, epsilon):
    layer_norm(data(out), data(x), data(gain), data(bias), n, epsilon)


def pad(row):
    return np.pad(row, (0, padded(len(row), 16) - len(row))).astype(np.float32)


def check(x, gain, bias, epsilon=1e-5, tolerance=2e-6):
    out = np.full(padded(len(x), 16) + 1, np.nan, np.float32)
    normed(out, pad(x), pad(gain), pad(bias), len(x), np.float32(epsilon))
    assert np.isnan(out[-1])
    np.testing.assert_array_equal(out[len(x) : -1], 0)  # what is packed after it reads whole groups
    expected = reference.layer_norm(np.float64(x), gain, bias, epsilon)
    np.testing.assert_allclose(out[: len(x)], expected, atol=tolerance * max(1, np.abs(expected).max()), rtol=0)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 40, 48, 100, 768, 1600])
def test_random_rows(rng, n):
    x, gain, bias = rng.standard_normal((3, n), np.float32)
    check(x, gain, bias)
    check(1e-3 * x, gain, bias)
    check(x, gain, bias, epsilon=0.1)


def test_outlier_channels_of_a_trained_model(rng):
    x, gain, bias = rng.standard_normal((3, 768), np.float32)
    x[[138, 378, 447]] = 3e3, -1.5e3, 500
    gain[138] = 17
    check(x, gain, bias)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, 3e3, 1e-40, -1e15])
def test_rows_of_one_number(rng, value):
    """Nothing but the bias remains, as far as float32 can tell the mean from the numbers."""
    gain, bias = rng.standard_normal((2, 48), np.float32)
    check(np.full(48, value, np.float32), gain, bias)


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1e10, 1e15])
def test_rows_of_any_size(rng, scale):
    x, gain, bias = rng.standard_normal((3, 100), np.float32)
    check(np.float32(scale) * x, gain, bias)


def test_a_mean_far_from_zero(rng):
    """The mean is known to a few parts in 1e7 of itself, and so is what is left without it."""
    x, gain, bias = rng.standard_normal((3, 768), np.float32)
    check(x + 100, gain, bias, tolerance=1e-4)
