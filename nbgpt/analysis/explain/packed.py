"""Arrays inside JSON: compressed bytes in base64, which assets/data.js unpacks."""

from __future__ import annotations

import zlib
from base64 import b64encode
from typing import Any

import numpy as np

_KEPT_BITS = np.uint32(0xFFFFF000)
_HALF = np.uint32(0x800)


def pack(array: np.ndarray) -> dict[str, Any]:
    """An array of uint8, int16, int32 or float32 for JSON: dtype, shape, data."""
    return packed(array, zlib.compress(np.ascontiguousarray(array).tobytes(), 9))


def packed(array: np.ndarray, data: bytes) -> dict[str, Any]:
    """An array that has been compressed already."""
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": b64encode(data).decode()}


def pack_floats(array: np.ndarray) -> dict[str, Any]:
    """Numbers as float32 of 11 bits of fraction, three to four digits, which compress well.

    Raises ValueError for numbers that are not finite.
    """
    floats = array.astype(np.float32)
    if not np.isfinite(floats).all():
        raise ValueError("the model's numbers overflow on this text; there is nothing to show")
    return pack(((floats.view(np.uint32) + _HALF) & _KEPT_BITS).view(np.float32))
