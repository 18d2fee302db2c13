"""The feed-forward layer's activations against their formulas."""

import numpy as np
import pytest
import reference
from numba import njit

from nbgpt.config import ACTIVATIONS
from nbgpt.kernels.gelu import activate
from nbgpt.simd import data


@njit(error_model="numpy")
def activated(x, bias, activation):
    activate(data(x), data(bias), len(x), activation)
    return x


@pytest.mark.parametrize("largest", [1, 6, 20, 1e4, 1e15, 1e30])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_error_is_below_2e_7(name, largest):
    """Relative to x where |x| > 1."""
    x = np.linspace(-largest, largest, 1 << 14, dtype=np.float32)
    y = activated(x.copy(), np.zeros_like(x), ACTIVATIONS.index(name))
    exact = reference.ACTIVATIONS[name](x.astype(np.float64))
    assert (np.abs(y - exact) <= 2e-7 * np.maximum(1, np.abs(x))).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bias_is_added_first(rng, name):
    x, bias = rng.standard_normal((2, 48), np.float32)
    index = ACTIVATIONS.index(name)
    np.testing.assert_array_equal(activated(x.copy(), bias, index), activated(x + bias, np.zeros_like(x), index))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_awkward_numbers(name):
    x = np.array([0, -0.0, 1e-45, -1e-45, 3e38, -14, -1e4, np.nan] + 8 * [0], np.float32)
    y = activated(x.copy(), np.zeros_like(x), ACTIVATIONS.index(name))
    np.testing.assert_array_equal(y[:2], 0)
    np.testing.assert_array_equal(y[8:], 0)  # zero stays zero: padding depends on it
    exact = reference.ACTIVATIONS[name](x[2:7].astype(np.float64))
    np.testing.assert_allclose(y[2:7], exact, atol=1e-33, rtol=2e-6)  # exp(24) of an argument that was rounded
    assert np.isnan(y[7])  # broken numbers are not hidden
