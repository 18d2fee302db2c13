"""Softmax, its logarithm, sigmoid and LayerNorm beside their definitions, in Python's own floats."""

import math

import numpy as np
import pytest

from nbgpt.operations import layer_norm, log_softmax, sigmoid, softmax


def test_softmax_is_its_definition_along_the_last_axis(rng):
    logits = rng.standard_normal((3, 4, 7))
    found = softmax(logits)
    for row, probabilities in zip(logits.reshape(-1, 7), found.reshape(-1, 7), strict=True):
        total = math.fsum(math.exp(value) for value in row)
        assert probabilities.tolist() == pytest.approx([math.exp(value) / total for value in row], rel=1e-14)


def test_softmax_keeps_the_dtype_and_its_argument():
    logits = np.array([[1.0, 2.0]], np.float32)
    assert softmax(logits).dtype == np.float32
    assert logits.tolist() == [[1.0, 2.0]]


def test_softmax_of_what_exp_would_overflow_and_of_banned_tokens():
    assert softmax(np.array([1e4, 1e4, -np.inf])).tolist() == [0.5, 0.5, 0.0]


def test_log_softmax_is_its_definition_in_float64(rng):
    logits = rng.standard_normal((3, 7)).astype(np.float32)
    found = log_softmax(logits)
    for row, logs in zip(logits.tolist(), found, strict=True):
        total = math.fsum(math.exp(value) for value in row)
        assert logs.tolist() == pytest.approx([math.log(math.exp(value) / total) for value in row], rel=1e-14)
    assert found.dtype == np.float64
    assert log_softmax(np.array([1e4, 0.0, -1e4])).tolist() == [0.0, -1e4, -2e4]  # no logarithm of 0


@pytest.mark.parametrize("logit", [-1e4, -3.0, 0.0, 0.5, 20.0, 1e4])
def test_sigmoid_is_its_definition(logit):
    expected = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
    assert sigmoid(np.array([logit]))[0] == pytest.approx(expected, abs=1e-15)


def test_layer_norm_is_its_definition(rng):
    rows, gain, bias = rng.standard_normal((2, 5)) + 3, rng.standard_normal(5), rng.standard_normal(5)
    found = layer_norm(rows.astype(np.float32), gain, bias, 1e-2)
    for row, normed in zip(rows.astype(np.float32).astype(float), found, strict=True):
        mean = math.fsum(row) / 5
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in row) / 5 + 1e-2)
        expected = [(value - mean) / deviation * g + b for value, g, b in zip(row, gain, bias, strict=True)]
        assert normed.tolist() == pytest.approx(expected, rel=1e-13, abs=1e-13)
