"""LayerNorm of one row."""

from __future__ import annotations

from numba import types

from ..abi.layout import LANES
from ..simd import fma, keep_first, kernel, load, splat, square_root, store, total


@kernel
def layer_norm(out, x, gain, bias, n, epsilon):  # all [n], zero beyond, up to a multiple of 16
    """out = (x - mean) / sqrt(variance + epsilon) * gain + bias (Ba et al. 2016)."""
    zero = splat(types.float32(0))
    sums = zero
    for k in range(0, n, LANES):
        sums = sums + load(x, k)
    mean = splat(total(sums) / types.float32(n))
    squares = zero
    for k in range(0, n, LANES):
        centered = keep_first(load(x, k) - mean, n - k, zero)
        squares = fma(centered, centered, squares)
    variance = total(squares) / types.float32(n)
    scale = splat(types.float32(1) / square_root(variance + epsilon))
    for k in range(0, n, LANES):
        store(out, k, fma((load(x, k) - mean) * scale, load(gain, k), load(bias, k)))
