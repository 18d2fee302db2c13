"""The whole model, by llama-bench's method, on random weights of GPT-2 124M: `python -m nbgpt bench` in short."""

import numpy as np
import pytest

from nbgpt.analysis.benchmark import random_weights, weight_bytes
from nbgpt.engine.kv_cache import Sequence
from nbgpt.engine.model_runner import ModelRunner
from nbgpt.weights import DTYPES


@pytest.fixture(scope="module", params=DTYPES)
def model(request):
    return ModelRunner(random_weights("124M", request.param))


@pytest.fixture
def ids():
    return np.random.default_rng(0).integers(0, 50257, 512).tolist()


def test_prefill(rate, model, ids):
    def prefill():
        sequence = Sequence()
        model.append(sequence, ids)
        model.cache.truncate(sequence, 0)

    rate(prefill, "tokens/s", len(ids))


@pytest.mark.parametrize("batch", [1, 8])
def test_decode(benchmark, rate, model, ids, batch):
    def decode():
        sequences = [Sequence() for _ in range(batch)]
        for step in range(16):
            model.decode(sequences, ids[step * batch : (step + 1) * batch])
        for sequence in sequences:
            model.cache.truncate(sequence, 0)

    rate(decode, "tokens/s", 16 * batch)
    if "tokens/s" in benchmark.extra_info:
        passes = benchmark.extra_info["tokens/s"] / batch
        benchmark.extra_info["GB/s"] = round(passes * weight_bytes(model.weights) / 1e9, 1)
