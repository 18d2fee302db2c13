"""exp, log and powers with the same bits on every CPU: whatever chooses an id computes with these.

NumPy takes its own exp and log from code for the instructions that it finds, and the C library does the same; their
last bits differ, and so, now and then, would a text. Here stand IEEE 754's additions and products one by one, which
NumPy rounds alike everywhere, and `decimal`, whose results the General Decimal Arithmetic fixes. Besides these NumPy's
comparisons, `cumsum` (in order) and `sum` (pairwise, in an order that depends on the length alone) may be used; not
`dot`, `@` and `einsum`, whose order depends on the CPU.
"""

from __future__ import annotations

import functools
from decimal import Context, Decimal

import numpy as np

_CONTEXT = Context(prec=25)
_STEPS = 128  # of the table in 1: a power of two, so that the distance from a step is exact
_LOWEST = -104  # e^-104 is less than half of the smallest float32
LN_2 = 0.6931471805599453


def exp(x: float) -> float:
    """e^x, rounded correctly."""
    return float(_CONTEXT.exp(Decimal(float(x))))


def log(x: float) -> float:
    """Natural logarithm of a number above 0, rounded correctly."""
    return float(_CONTEXT.ln(Decimal(float(x))))


def power(base: float, exponent: float) -> float:
    """base ** exponent, for a base above 0."""
    return float(_CONTEXT.power(Decimal(float(base)), Decimal(float(exponent))))


@functools.cache
def _table() -> np.ndarray:
    """float32 [n]: e^(-i / _STEPS); the last is 0."""
    whole = np.array([exp(-i) for i in range(-_LOWEST + 1)])
    parts = np.array([exp(-i / _STEPS) for i in range(_STEPS)])
    table = np.outer(whole, parts).astype(np.float32).ravel()[: -_LOWEST * _STEPS + 1]
    table[-1] = 0
    return table


def exp_array(x: np.ndarray) -> np.ndarray:
    """e^x within 2 units in the last place, for x of at most 0: float32 [n] -> float32 [n].

    From a table for the nearest multiple of 1/128, times a Taylor series of degree 3 for the distance from it, which is
    at most 1/256: the remainder is 1e-11.
    """
    x = np.maximum(x, np.float32(_LOWEST))
    steps = x * np.float32(-_STEPS)
    index = np.rint(steps, out=steps).astype(np.int16)
    steps *= np.float32(1 / _STEPS)
    x += steps
    series: np.ndarray = x * np.float32(1 / 6)
    series += np.float32(0.5)
    for _ in range(2):
        series *= x
        series += np.float32(1)
    series *= _table().take(index, mode="clip")
    return series


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities float32 [n]."""
    weights: np.ndarray = exp_array(scores - scores.max())
    # the division is in float64, which NumPy 1 would not choose by itself
    np.divide(weights, weights.sum(dtype=np.float64), out=weights, dtype=np.float64, casting="same_kind")
    return weights


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Natural logarithms of the probabilities, float32 [n]."""
    logs: np.ndarray = scores - scores.max()
    logs -= np.float32(log(exp_array(logs).sum(dtype=np.float64)))
    return logs


def largest(scores: np.ndarray, n: int) -> np.ndarray:
    """Ids of the n largest scores [n_vocab], largest first, the smaller id first among equals: int64 [n].

    Which of equals `argpartition` takes depends on the CPU's instructions.
    """
    n = min(n, len(scores))
    if n == 0:
        return np.empty(0, np.int64)
    ids = np.flatnonzero(scores >= np.partition(scores, -n)[-n])
    chosen: np.ndarray = ids[np.argsort(-scores[ids], kind="stable")[:n]]
    return chosen
