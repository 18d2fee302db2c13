"""What a measure returns: values with their standard errors, and the protocol by which they were measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A value that was estimated from a sample."""

    value: float
    standard_error: float  # if the examples, or tokens, were independent; nan for a sample of one


@dataclass(frozen=True)
class Measurement:
    """The result of a benchmark."""

    protocol: str  # what was computed, and whose protocol that is
    n: int  # examples
    n_truncated: int  # examples that lost the beginning of their context, which was too long for the model
    estimates: dict[str, Estimate]  # by the names that lm-evaluation-harness has for them


def mean_of(values: np.ndarray) -> Estimate:
    """The mean of values [n]; its standard error is their deviation (n - 1 degrees of freedom) by the root of n."""
    n = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Estimate(float(values.mean()), error)


def exp_of(estimate: Estimate) -> Estimate:
    """The exponential of a mean: perplexity, of one of NLLs. The error is that of the mean times the value."""
    with np.errstate(over="ignore"):
        value = float(np.exp(estimate.value))
    return Estimate(value, value * estimate.standard_error)
