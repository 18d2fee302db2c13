"""Means and their errors, against the formulas written out."""

import math

import numpy as np
import pytest

from nbgpt.analysis.estimate import Estimate, exp_of, mean_of


def test_mean(rng):
    values = rng.standard_normal(50)
    mean = sum(values) / 50
    variance = sum((value - mean) ** 2 for value in values) / 49
    found = mean_of(values)
    assert found.value == pytest.approx(mean)
    assert found.standard_error == pytest.approx(math.sqrt(variance / 50))


def test_the_error_of_a_share():
    """As lm-evaluation-harness reports it: 0.3256 +/- 0.0065 of 5153."""
    found = mean_of(np.repeat([1.0, 0.0], [1678, 5153 - 1678]))
    assert f"{found.value:.4f} +/- {found.standard_error:.4f}" == "0.3256 +/- 0.0065"


def test_a_sample_of_one_has_no_error():
    found = mean_of(np.array([2.5]))
    assert found.value == 2.5
    assert math.isnan(found.standard_error)


def test_exponential():
    found = exp_of(Estimate(2.0, 0.1))
    assert found.value == pytest.approx(math.exp(2))
    assert found.standard_error == pytest.approx(0.1 * math.exp(2))
    assert exp_of(Estimate(1e4, 1.0)).value == math.inf
