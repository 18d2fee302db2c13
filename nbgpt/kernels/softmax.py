"""exp on registers, and a softmax without its division, so that parts can be merged."""

from __future__ import annotations

import math

import numpy as np
from numba import types

from ..abi.layout import LANES
from ..simd import (
    fma,
    keep_first,
    kernel,
    largest,
    load,
    maximum,
    minimum,
    round_even,
    scale_by_power,
    splat,
    store,
    total,
)

_F = np.float32
_LOG2_E = _F(1 / math.log(2))
_LN2_HIGH = _F(0.693359375)  # has few bits: n * _LN2_HIGH is exact for every n that occurs
_LN2_LOW = _F(math.log(2) - 0.693359375)
_LOWEST, _HIGHEST = _F(-87.0), _F(88.0)  # beyond these, e^x is no normal float32
_COEFFICIENTS = tuple(_F(1 / math.factorial(n)) for n in (7, 6, 5, 4, 3, 2, 1, 0))
_MINUS_INFINITY = _F(-np.inf)


@kernel
def exp(x):
    """e^x for each lane, within 2 units in the last place; x is clamped to -87..88.

    x = n ln 2 + r with |r| <= ln(2) / 2, ln 2 in two parts so that r stays exact (Cody and Waite 1980), and a Taylor
    series of degree 7 whose remainder is 5e-9.
    """
    x = minimum(maximum(x, splat(_LOWEST)), splat(_HIGHEST))
    n = round_even(x * splat(_LOG2_E))
    r = fma(n, splat(-_LN2_LOW), fma(n, splat(-_LN2_HIGH), x))
    c7, c6, c5, c4, c3, c2, c1, c0 = _COEFFICIENTS
    p = fma(splat(c7), r, splat(c6))
    p = fma(p, r, splat(c5))
    p = fma(p, r, splat(c4))
    p = fma(p, r, splat(c3))
    p = fma(p, r, splat(c2))
    p = fma(p, r, splat(c1))
    return scale_by_power(fma(p, r, splat(c0)), n)


@kernel
def softmax(scores, n_seen, n, tail):
    """scores [n] = exp(score - maximum) for the first n_seen of them, 0 for the rest.

    tail [2] = the maximum, and the sum of the weights, by which the caller divides. The memory of scores is a multiple
    of 16 floats; those beyond n become 0.
    """
    hidden = splat(_MINUS_INFINITY)
    top = hidden
    for k in range(0, n, LANES):
        top = maximum(top, keep_first(load(scores, k), n_seen - k, hidden))
    tail[0] = largest(top)
    weights, top = splat(types.float32(0)), splat(tail[0])
    for k in range(0, n, LANES):
        weight = keep_first(exp(load(scores, k) - top), n_seen - k, splat(types.float32(0)))
        store(scores, k, weight)
        weights = weights + weight
    tail[1] = total(weights)
