"""bfloat16, which most checkpoints of today store: the upper half of a float32. In NumPy its bits are uint16."""

from __future__ import annotations

import numpy as np

from ..abi.layout import LEAST_WEIGHT

BFLOAT16_MAX = (2 - 2.0**-7) * 2.0**127


def to_bfloat16(w: np.ndarray) -> np.ndarray:
    """Finite numbers [...] -> the bits of the nearest bfloat16, ties to even, uint16 [...].

    Magnitudes below 2^-64 become 0, see kernels/matmul.py; every other number that is a bfloat16 stays what it is.
    """
    bits = w.astype(np.float32).view(np.uint32)
    upper = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
    rounded: np.ndarray = np.where(np.abs(w) < LEAST_WEIGHT, 0, upper).astype(np.uint16)
    return rounded


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The bits of bfloat16, uint16 [...] -> float32 [...]."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
