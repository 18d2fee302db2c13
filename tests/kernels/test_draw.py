"""The compiled sampler against Hugging Face's rule in NumPy, by asking it with numbers all over the unit interval."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from nbgpt.abi.layout import LANES, SAMPLING_BUCKETS, padded, sampling_floats
from nbgpt.kernels.draw import sample
from nbgpt.sampling.rng import uniform
from nbgpt.simd import at, data

GREEDY = (0.0, 0, 1.0)


@njit(error_model="numpy")
def sample_each(logits, n, options, buckets, weights, ids):  # options [n_ids, 4], ids [n_ids]
    for i in range(len(ids)):
        ids[i] = sample(data(logits), n, at(data(options), 4 * i), data(buckets), data(weights))


def draw(logits, temperature, top_k, top_p, uniforms):
    """The ids that these uniform numbers draw; what lies beyond the logits and in the buffers is garbage."""
    n = len(logits)
    garbage = np.full(padded(n, LANES), np.nan, np.float32)
    garbage[:n] = logits
    options = np.array([(temperature, top_k, top_p, u) for u in uniforms])
    ids = np.empty(len(options), np.int64)
    buckets, weights = np.full(SAMPLING_BUCKETS, np.nan), np.full(sampling_floats(n), np.nan, np.float32)
    sample_each(garbage, n, options, buckets, weights, ids)
    return ids


def sum_of_larger(p):
    """For each of the numbers, the sum of those that are larger."""
    falling = np.sort(p)[::-1]
    sums = np.concatenate([[0], np.cumsum(falling)])
    return sums[np.searchsorted(-falling, -p, side="left")]


def probabilities(logits, temperature, top_k, top_p):
    """Temperature, then top-k, then top-p; equals stay or go together."""
    scores = np.float64(logits) / temperature
    if 0 < top_k < len(scores):
        scores = np.where(scores < np.sort(scores)[-top_k], -np.inf, scores)
    if top_p < 1:
        p = reference.softmax(scores)
        scores = np.where(sum_of_larger(p) < top_p, scores, -np.inf)  # the token that crosses top_p stays
    return reference.softmax(scores)


def check(logits, temperature, top_k, top_p, n_draws=1000):
    """Evenly spread numbers must draw each id as often as its probability says, up to one at either end."""
    expected = probabilities(logits, temperature, top_k, top_p)
    ids = draw(logits, temperature, top_k, top_p, (np.arange(n_draws) + 0.5) / n_draws)
    counts = np.bincount(ids, minlength=len(logits))
    assert (np.diff(ids) >= 0).all()
    assert (counts[expected < 1e-30] == 0).all()
    np.testing.assert_allclose(counts, n_draws * expected, atol=1.01)


@settings(max_examples=100, deadline=None)
@given(
    logits=st.lists(st.integers(-640, 640), min_size=1, max_size=70),
    temperature=st.floats(0.05, 20),
    top_k=st.integers(0, 72),
    top_p=st.floats(1e-6, 1),
)
def test_any_logits(logits, temperature, top_k, top_p):
    logits = np.array(logits) / 64  # apart, so that different logits are different probabilities
    p = probabilities(logits, temperature, top_k, 1)
    if np.abs(sum_of_larger(p) - top_p).min() > 1e-5:  # rounding may decide
        check(logits, temperature, top_k, top_p)


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1, 0, 1), (0.8, 40, 1), (1, 0, 0.9), (0.7, 100, 0.95)])
def test_a_whole_vocabulary(rng, temperature, top_k, top_p):
    check(rng.standard_normal(50257).astype(np.float32) * 4, temperature, top_k, top_p, n_draws=100)


ADVERSARIAL = {
    "one": [3.0],
    "all equal": np.zeros(33),
    "one hot": 100.0 * np.eye(1, 50, 17)[0],
    "ties at the cut": [5, 4, 4, 4, 4, 1, 0, 4, 4],
    "two equal and the rest far below": [7, 7] + [-1000] * 30,
    "forbidden": [1, -np.inf, 2, -np.inf, 3, -np.inf],
    "all but one forbidden": [-np.inf] * 20 + [-5] + [-np.inf] * 20,
    "huge": [3e38, -3e38, 1e38, 0],
    "a long tail": -np.arange(2000) / 100,
}
adversarial = pytest.mark.parametrize("logits", ADVERSARIAL.values(), ids=ADVERSARIAL)


@adversarial
@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.999, 1])
@pytest.mark.parametrize("top_k", [0, 1, 2, 3, 100_000])
def test_adversarial_logits(logits, top_k, top_p):
    check(np.array(logits, np.float32), 1.0, top_k, top_p)


@adversarial
@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-20, 1e-6])
def test_a_tiny_temperature_is_greedy(logits, temperature):
    """Equals share what there is."""
    logits = np.array(logits, np.float32)
    ids = draw(logits, temperature, 0, 1, np.arange(100) / 100)
    assert set(ids) == set(np.flatnonzero(logits == logits.max()))


@pytest.mark.parametrize("temperature", [1e20, 1e38, 1e300])
def test_at_a_huge_temperature_all_that_is_not_forbidden_is_equal(temperature):
    logits = np.array([10, -np.inf, -10, -np.inf, 0, 3], np.float32)
    ids = draw(logits, temperature, 0, 1, np.arange(400) / 400)
    assert np.bincount(ids).tolist() == [100, 0, 100, 0, 100, 100]


@pytest.mark.parametrize("u", [0, 1 - 2.0**-53])
@adversarial
def test_either_end_of_the_unit_interval(logits, u):
    logits = np.array(logits, np.float32)
    expected = probabilities(logits, 1, 0, 1)
    allowed = np.flatnonzero(expected > 1e-37)
    assert draw(logits, 1, 0, 1, [u]) == allowed[0 if u == 0 else -1]


@adversarial
def test_greedy_takes_the_first_of_the_largest(logits):
    logits = np.array(logits, np.float32)
    assert (draw(logits, *GREEDY, np.arange(5) / 5) == logits.argmax()).all()


def test_seeded_draws_have_the_right_distribution(rng):
    logits = rng.standard_normal(200).astype(np.float32) * 2
    n_draws = 20_000
    ids = draw(logits, 0.9, 50, 0.95, [uniform(7, 0, position) for position in range(n_draws)])
    expected = n_draws * probabilities(logits, 0.9, 50, 0.95)
    kept = expected > 0
    counts = np.bincount(ids, minlength=len(logits))
    assert counts[~kept].sum() == 0
    chi_square, freedom = ((counts - expected)[kept] ** 2 / expected[kept]).sum(), kept.sum() - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)
