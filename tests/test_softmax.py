"""exp over its whole range, and a softmax that sees its scores a page at a time."""

import numpy as np
import pytest
import reference
from numba import njit

from nbgpt.kernels.softmax import exp, softmax_page
from nbgpt.layout import LANES, PAGE
from nbgpt.simd import at, data, load, store


@njit(error_model="numpy")
def exp_of(x):
    for k in range(0, len(x), LANES):
        store(data(x), k, exp(load(data(x), k)))


@njit(error_model="numpy")
def softmax_pages(scores, n_keys, running, factors):  # [n_pages, PAGE], int64
    for page in range(len(scores)):
        factors[page] = softmax_page(at(data(scores), page * PAGE), n_keys - page * PAGE, data(running))


def test_exp_is_within_1_2_units_in_the_last_place():
    x = np.linspace(-87, 88, 1 << 20, dtype=np.float32)
    y = x.copy()
    exp_of(y)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(y - exact) / np.spacing(exact.astype(np.float32))).max() <= 1.2  # 0.92 with FMA
    assert (np.diff(y) >= 0).all()


def test_exp_at_its_limits():
    x = np.zeros(LANES, np.float32)
    x[:6] = 0, -0.0, 1e-45, -1000, 1000, -np.inf
    y = x.copy()
    exp_of(y)
    np.testing.assert_array_equal(y[:3], 1)
    np.testing.assert_allclose(y[3:6], np.exp([-87, 88, -87]), rtol=1e-6)


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("n_keys", [1, 2, 15, 16, 17, 63, 64, 65, 128, 130, 192])
def test_pages_of_softmax(rng, n_keys, spread):
    scores = rng.standard_normal((3, PAGE), np.float32) * np.float32(spread)
    hidden = np.arange(3 * PAGE).reshape(scores.shape) >= n_keys
    scores[hidden] = np.nan  # whatever an old page holds
    weights, running, factors = scores.copy(), np.array([-np.inf, 0], np.float32), np.zeros(3, np.float32)
    softmax_pages(weights, n_keys, running, factors)
    np.testing.assert_array_equal(weights[hidden], 0)
    assert running[0] == scores[~hidden].max()
    for page in (1, 2):  # an earlier page's weights are relative to the maximum that was known then
        weights[:page] *= factors[page]
    probabilities = weights.reshape(-1)[:n_keys] / running[1]
    np.testing.assert_allclose(probabilities, reference.softmax(np.float64(scores[~hidden])), atol=5e-7, rtol=0)


def test_a_page_without_keys_changes_nothing(rng):
    scores = rng.standard_normal((1, PAGE), np.float32)
    running, factors = np.array([1.5, 7], np.float32), np.zeros(1, np.float32)
    for n_keys in (0, -5):
        softmax_pages(scores.copy(), n_keys, running, factors)
        assert running.tolist() == [1.5, 7]
        assert factors == [1]
