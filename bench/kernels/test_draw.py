"""Drawing an id from the logits of GPT-2's vocabulary, on one thread: ids a second."""

import numpy as np
import pytest
from numba import njit

from nbgpt.abi.layout import SAMPLING_BUCKETS, sampling_floats
from nbgpt.kernels.draw import sample
from nbgpt.simd import data


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (40, 1.0), (40, 0.9), (0, 0.9)])
def test_sampling(rate, top_k, top_p):
    n = 50257

    @njit(error_model="numpy")
    def call(logits, options, buckets, scratch):
        return sample(data(logits), n, data(options), data(buckets), data(scratch))

    logits = np.random.default_rng(0).standard_normal(n + 64).astype(np.float32) * 3
    buckets, scratch = np.zeros(SAMPLING_BUCKETS), np.zeros(sampling_floats(n), np.float32)
    options = np.array([0.8, top_k, top_p, 0.5])
    rate(lambda: call(logits, options, buckets, scratch), "ids/s", 1)
