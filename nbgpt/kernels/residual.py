"""Addition of rows, and to the residual stream."""

from __future__ import annotations

from ..abi.layout import LANES
from ..simd import kernel, load, store


@kernel
def add_residual(x, branch, bias, n):  # x, branch, bias [n], n a multiple of 16
    """x += branch + bias (He et al. 2016)."""
    for k in range(0, n, LANES):
        store(x, k, load(x, k) + (load(branch, k) + load(bias, k)))


@kernel
def add(x, y, n):  # x, y [n], n a multiple of 16
    """x += y."""
    for k in range(0, n, LANES):
        store(x, k, load(x, k) + load(y, k))
