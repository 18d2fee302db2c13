"""The activations of the MLP, with the addition of the bias that precedes them."""

from __future__ import annotations

import math

import numpy as np
from numba import types

from ..abi.layout import LANES
from ..simd import absolute, fma, kernel, load, maximum, splat, store
from .softmax import exp

_F = np.float32
_TANH_SCALE = _F(-2 * math.sqrt(2 / math.pi))
_CUBIC = _F(0.044715)
_SQRT_HALF = _F(math.sqrt(0.5))
# erf x = 1 - (a1 t + ... + a5 t^5) exp(-x^2), t = 1 / (1 + p x); within 1.5e-7 (Abramowitz and Stegun 7.1.26).
_ERF_P = _F(0.3275911)
_ERF_A = tuple(_F(a) for a in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592))


@kernel
def gelu_new(x):
    """0.5 x (1 + tanh z) = x / (1 + exp(-2 z)), z = sqrt(2 / pi) (x + 0.044715 x^3) (Hendrycks and Gimpel 2016)."""
    one = splat(types.float32(1))
    exponent = splat(_TANH_SCALE) * fma(x * x * x, splat(_CUBIC), x)
    return x / (one + exp(exponent))


@kernel
def gelu(x):
    """x * Phi(x), Phi the distribution function of the normal distribution (Hendrycks and Gimpel 2016)."""
    one, zero = splat(types.float32(1)), splat(types.float32(0))
    z = absolute(x) * splat(_SQRT_HALF)
    t = one / fma(splat(_ERF_P), z, one)
    a5, a4, a3, a2, a1 = _ERF_A
    series = fma(fma(fma(fma(splat(a5), t, splat(a4)), t, splat(a3)), t, splat(a2)), t, splat(a1)) * t
    tail = series * exp(zero - z * z) * splat(types.float32(0.5))  # |x| * tail is |x| Phi(-|x|)
    return maximum(x, zero) - absolute(x) * tail


@kernel
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    one, zero = splat(types.float32(1)), splat(types.float32(0))
    return one / (one + exp(zero - x))


@kernel
def silu(x):
    """x sigmoid(x) (Elfwing et al. 2017)."""
    return x * sigmoid(x)


@kernel
def quick_gelu(x):
    """x sigmoid(1.702 x) (https://github.com/hendrycks/GELUs)."""
    return x * sigmoid(splat(_F(1.702)) * x)


@kernel
def tanh(x):
    """2 sigmoid(2 x) - 1; x - x is NaN where x is, which exp would hide."""
    return splat(types.float32(2)) * sigmoid(x + x) - splat(types.float32(1)) + (x - x)


@kernel
def activate(x, bias, n, activation):  # x, bias [n], n a multiple of 16; activation: index in config.ACTIVATIONS
    """x = activation(x + bias), in place."""
    for k in range(0, n, LANES):
        value = load(x, k) + load(bias, k)
        if activation == 0:
            value = gelu_new(value)
        elif activation == 1:
            value = gelu(value)
        elif activation == 2:
            value = maximum(splat(types.float32(0)), value)  # in this order NaN stays NaN
        elif activation == 3:
            value = silu(value)
        elif activation == 4:
            value = tanh(value)
        else:
            value = quick_gelu(value)
        store(x, k, value)
