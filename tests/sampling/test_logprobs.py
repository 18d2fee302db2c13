"""Log-probabilities of tokens from logits."""

import numpy as np
import pytest

from nbgpt.sampling.logprobs import measure


def log_softmax(logits):
    logits = np.float64(logits)
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


@pytest.mark.parametrize("n_top", [0, 1, 5, 1000])
def test_a_vocabulary(rng, n_top):
    logits = (5 * rng.standard_normal(1000)).astype(np.float32)
    expected = log_softmax(logits)
    one = measure(logits, 7, n_top)
    likeliest = np.argsort(-expected)[:n_top].tolist()
    assert (one.token, list(one.top)) == (7, likeliest)
    assert one.logprob == pytest.approx(expected[7], abs=1e-5)
    np.testing.assert_allclose(list(one.top.values()), expected[likeliest], atol=1e-5)


def test_equals_stand_in_the_order_of_their_ids():
    assert list(measure(np.array([1, 3, 2, 3, 3], np.float32), 0, 4).top) == [1, 3, 4, 2]


def test_what_is_certain_and_what_cannot_be():
    one = measure(np.array([0, -np.inf, -200], np.float32), 1, 2)
    assert one.logprob == -np.inf
    assert one.top[0] == 0
