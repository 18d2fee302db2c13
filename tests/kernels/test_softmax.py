"""exp over its whole range, and a softmax that nothing is divided by yet."""

import numpy as np
import pytest
import reference
from numba import njit

from nbgpt.abi.layout import LANES
from nbgpt.kernels.softmax import exp, softmax
from nbgpt.simd import data, load, store


@njit(error_model="numpy")
def exp_of(x):
    for k in range(0, len(x), LANES):
        store(data(x), k, exp(load(data(x), k)))


@njit(error_model="numpy")
def weigh(scores, n_seen, tail):
    softmax(data(scores), n_seen, len(scores), data(tail))


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
@pytest.mark.parametrize("n_seen", [1, 2, 15, 16, 17, 63, 64, 65, 128, 130, 192])
def test_weights_and_their_sum(rng, n_seen, spread):
    scores = rng.standard_normal(192, np.float32) * np.float32(spread)
    scores[n_seen:] = np.nan  # whatever an old page holds
    weights, tail = scores.copy(), np.zeros(2, np.float32)
    weigh(weights, n_seen, tail)
    np.testing.assert_array_equal(weights[n_seen:], 0)
    assert tail[0] == scores[:n_seen].max()
    expected = reference.softmax(np.float64(scores[:n_seen]))
    np.testing.assert_allclose(weights[:n_seen] / tail[1], expected, atol=5e-7, rtol=0)


def test_scores_that_are_not_seen_change_no_bit(rng):
    scores = rng.standard_normal(256, np.float32)
    few, tail_of_few, tail = scores[:48].copy(), np.zeros(2, np.float32), np.zeros(2, np.float32)
    weigh(few, 40, tail_of_few)
    weigh(scores, 40, tail)
    np.testing.assert_array_equal(scores[:48], few)
    np.testing.assert_array_equal(tail, tail_of_few)


def test_a_query_that_sees_nothing(rng):
    for n_seen in (0, -5):
        scores, tail = rng.standard_normal(64, np.float32), np.ones(2, np.float32)
        weigh(scores, n_seen, tail)
        np.testing.assert_array_equal(scores, 0)
        assert tail.tolist() == [-np.inf, 0]
