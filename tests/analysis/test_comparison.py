"""Two models beside each other, against llama.cpp's formulas in float64."""

import math

import numpy as np
import pytest
import reference
from models import config_of, open_model, random_params, write_native

from nbgpt.analysis.comparison import PERCENTILES, compare
from nbgpt.analysis.perplexity import perplexity

N_CTX, N_VOCAB = 32, 61
CONFIG = config_of(n_ctx=N_CTX, n_vocab=N_VOCAB)
A = random_params(CONFIG)
B = {
    name: values + 0.02 * np.random.default_rng(1).standard_normal(values.shape, np.float32)
    for name, values in A.items()
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [
        open_model(write_native(folder / f"{name}.safetensors", params, CONFIG, "float32"))
        for name, params in (("a", A), ("b", B))
    ]


@pytest.fixture
def text(rng):
    return rng.integers(0, N_VOCAB, 150).tolist()


def mean_and_uncertainty(values):
    """llama.cpp: mean_and_uncertainty(sum, sum2, count)."""
    mean = sum(values) / len(values)
    square = sum(value**2 for value in values) / len(values) - mean**2
    return mean, math.sqrt(square / (len(values) - 1))


def percentile(values, percent):
    """llama.cpp: percentile(data, size, fraction)."""
    values, place = sorted(values), percent / 100 * (len(values) - 1)
    low = int(place)
    above = values[min(low + 1, len(values) - 1)]
    return values[low] + (place - low) * (above - values[low])


def rows_of(ids, n_ctx, bos):
    """NLL of A and B, KL divergence, change of p, and whether the likeliest agree, of each scored token."""
    for chunk in range(len(ids) // n_ctx):
        tokens = ids[chunk * n_ctx : (chunk + 1) * n_ctx]
        read = np.array(tokens if bos is None else [bos, *tokens[1:]])
        p, q = (reference.softmax(reference.gpt2(read, params, CONFIG)) for params in (A, B))
        for j in range(n_ctx // 2, n_ctx - 1):
            target = tokens[j + 1]
            divergence = math.fsum(p[j] * (np.log(p[j]) - np.log(q[j])))
            yield (
                -math.log(p[j][target]),
                -math.log(q[j][target]),
                divergence,
                q[j][target] - p[j][target],
                float(p[j].argmax() == q[j].argmax()),
            )


def close(estimate, expected):
    assert estimate.value == pytest.approx(expected[0], rel=1e-3, abs=1e-6)
    assert estimate.standard_error == pytest.approx(expected[1], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("window", "bos"), [(None, None), (32, 60), (17, None)])
def test_statistics(models, text, window, bos):
    found = compare(*models, text, window, bos)
    nll_a, nll_b, divergence, change, same = map(list, zip(*rows_of(text, window or N_CTX, bos), strict=True))
    assert (found.window, found.n_scored) == (window or N_CTX, len(nll_a))
    for estimate, values in ((found.perplexity_a, nll_a), (found.perplexity_b, nll_b)):
        mean, error = mean_and_uncertainty(values)
        close(estimate, (math.exp(mean), error * math.exp(mean)))
    ratio, error = mean_and_uncertainty(np.subtract(nll_b, nll_a))
    close(found.log_ratio, (ratio, error))
    close(found.ratio, (math.exp(ratio), error * math.exp(ratio)))
    close(found.divergence, mean_and_uncertainty(divergence))
    close(found.change, mean_and_uncertainty(change))
    close(found.same_top, mean_and_uncertainty(same))
    square, error = mean_and_uncertainty(np.square(change))
    close(found.change_rms, (math.sqrt(square), 0.5 / math.sqrt(square) * error))
    assert found.correlation == pytest.approx(np.corrcoef(nll_a, nll_b)[0, 1], abs=1e-5)
    for percent in PERCENTILES:
        assert found.divergence_percentiles[percent] == pytest.approx(percentile(divergence, percent), abs=2e-5)
        assert found.change_percentiles[percent] == pytest.approx(percentile(change, percent), abs=2e-5)
    assert 0.3 < found.same_top.value < 1
    assert found.divergence.value > 0.01


def test_the_error_of_the_ratio_is_llama_cpps(models, text):
    """From the errors of both and their covariance, as llama.cpp computes it."""
    nll_a, nll_b, *_ = map(np.array, zip(*rows_of(text, N_CTX, None), strict=True))
    n = len(nll_a)
    covariance = ((nll_a * nll_b).mean() - nll_a.mean() * nll_b.mean()) / (n - 1)
    square = mean_and_uncertainty(nll_a)[1] ** 2 + mean_and_uncertainty(nll_b)[1] ** 2 - 2 * covariance
    assert compare(*models, text).log_ratio.standard_error == pytest.approx(math.sqrt(square), rel=1e-3)


def test_perplexities_are_those_of_perplexity(models, text):
    found = compare(*models, text)
    for model, estimate in zip(models, (found.perplexity_a, found.perplexity_b), strict=True):
        alone = perplexity(model, text)
        assert estimate.value == pytest.approx(alone.perplexity, rel=1e-6)
        assert estimate.standard_error == pytest.approx(alone.standard_error, rel=1e-6)


def test_a_model_beside_itself(models, text):
    found = compare(models[0], models[0], text)
    assert (found.divergence.value, found.divergence.standard_error, found.ratio.value) == (0, 0, 1)
    assert (found.same_top.value, found.change_rms.value, found.change_rms.standard_error) == (1, 0, 0)
    assert found.correlation == pytest.approx(1)


def test_progress(models, text):
    calls = []
    compare(*models, text, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(n, 4) for n in (1, 2, 3, 4)]


def test_bad_requests(models, text, tmp_path):
    with pytest.raises(ValueError, match="window is 33; it must be from 4 to 32, the context of these models"):
        compare(*models, text, 33)
    with pytest.raises(ValueError, match="the text has 31 tokens; this needs at least 32: choose a longer one"):
        compare(*models, text[:31])
    config = config_of(n_vocab=60)
    other = open_model(write_native(tmp_path / "m.safetensors", random_params(config), config, "float32"))
    with pytest.raises(
        ValueError, match="the models have 61 and 60 ids; only models of one vocabulary can be compared"
    ):
        compare(models[0], other, text)
