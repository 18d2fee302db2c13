"""Packing: matrices as panels, the layout that the native file stores and the kernels read.

A panel is 16 outputs side by side, and a matrix is padded with zeros to whole pairs of panels and whole groups of
inputs:

    float32, float16   [panels, n_in, 16]
    bfloat16           [panels, n_in / 2, 16, 2]
    int8               [panels, n_in / 4, 16, 4] bytes, q + 128
    int4               [panels, n_in / 8, 16, 4] bytes, the first four of eight inputs in the lower halves
    scales, offsets    [panels, groups, 16] float16
"""

from __future__ import annotations

import numpy as np

from ..abi.layout import BLOCK_BFLOAT16, FLOATS, GROUP_INT4, GROUP_INT8, LANES, PANELS, padded
from . import gptq
from .bfloat16 import BFLOAT16_MAX, from_bfloat16, to_bfloat16
from .quantize import (
    FLOAT16_MAX,
    check_range,
    dequantize_int4,
    dequantize_int8,
    pad_inputs,
    quantize_int4,
    quantize_int8,
)


def encode(
    w: np.ndarray, dtype: str, moments: np.ndarray | None = None, scale: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Pack w [n_out, n_in] for a native file -> (values,), (values, scales) or (values, scales, offsets).

    moments: second moments of the inputs, which int4 takes into account: float32 [n_in], the mean squares, to weigh
    the rounding errors; or [n_in, n_in], X.T @ X, to balance them (see gptq.py). scale: float32 [n_in], by which w has
    been divided, and by which the inputs are multiplied that the moments describe.
    Raises ValueError if weights are not finite or too large for the dtype.
    """
    if dtype == "bfloat16":
        return (pack_bfloat16(w),)
    if dtype in FLOATS:
        return (pack_float(w, dtype),)
    if dtype == "int8":
        return pack_int8(*quantize_int8(w))
    if moments is not None and scale is not None:
        moments = moments * (scale * scale if moments.ndim == 1 else np.outer(scale, scale))
    if moments is not None and moments.ndim == 2:
        return pack_int4(*gptq.quantize_int4(w, moments))
    return pack_int4(*quantize_int4(w, moments))


def decode(values: tuple[np.ndarray, ...], dtype: str, n_out: int, n_in: int) -> np.ndarray:
    """Undo `encode` -> float32 [n_out, n_in], with the rounding of the dtype."""
    if dtype == "bfloat16":
        return unpack_bfloat16(values[0], n_out, n_in)
    if dtype in FLOATS:
        return unpack_float(values[0], n_out, n_in)
    if dtype == "int8":
        return dequantize_int8(*unpack_int8(values[0], values[1], n_out, n_in))
    return dequantize_int4(*unpack_int4(values[0], values[1], values[2], n_out, n_in))


def pad_vector(x: np.ndarray) -> np.ndarray:
    """x [n] -> float32, with zeros to a whole pair of panels."""
    out = np.zeros(padded(len(x), LANES * PANELS), np.float32)
    out[: len(x)] = x
    return out


def pack_float(w: np.ndarray, dtype: str) -> np.ndarray:
    """w [n_out, n_in] -> float32 or float16 [panels, n_in, 16]. Raises ValueError for what the dtype cannot hold."""
    check_range(w, FLOAT16_MAX if dtype == "float16" else float(np.finfo(np.float32).max), dtype)
    return _pack_groups(w.astype(dtype))


def unpack_float(values: np.ndarray, n_out: int, n_in: int) -> np.ndarray:
    """[panels, n_in, 16] -> float32 [n_out, n_in]."""
    return _unpack_groups(values, n_out)[:, :n_in].astype(np.float32)


def pack_bfloat16(w: np.ndarray) -> np.ndarray:
    """w [n_out, n_in] -> the bits of bfloat16 [panels, n_in / 2, 16, 2]. Raises ValueError for what it cannot hold."""
    check_range(w, BFLOAT16_MAX, "bfloat16")
    values = _padded_outputs(pad_inputs(to_bfloat16(w), BLOCK_BFLOAT16))
    return np.ascontiguousarray(values.reshape(-1, LANES, values.shape[1] // 2, 2).transpose(0, 2, 1, 3))


def unpack_bfloat16(values: np.ndarray, n_out: int, n_in: int) -> np.ndarray:
    """[panels, n_in / 2, 16, 2] -> float32 [n_out, n_in]."""
    return from_bfloat16(values.transpose(0, 2, 1, 3).reshape(-1, 2 * values.shape[1])[:n_out, :n_in])


def pack_int8(q: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 [n_out, n_in], scales [n_out, groups] -> uint8 [panels, n_in / 4, 16, 4], float16 [panels, groups, 16]."""
    values = pad_inputs(q.astype(np.int16) + 128, GROUP_INT8, fill=128).astype(np.uint8)
    values = _padded_outputs(values, fill=128).reshape(-1, LANES, values.shape[1] // 4, 4)
    return np.ascontiguousarray(values.transpose(0, 2, 1, 3)), _pack_groups(scale)


def unpack_int8(values: np.ndarray, scale: np.ndarray, n_out: int, n_in: int) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `pack_int8`."""
    q = values.transpose(0, 2, 1, 3).reshape(-1, 4 * values.shape[1])[:n_out, :n_in]
    return (q.astype(np.int16) - 128).astype(np.int8), _unpack_groups(scale, n_out)


def pack_int4(q: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uint8 0..15 [n_out, n_in], scales and offsets [n_out, groups] -> uint8 [panels, n_in / 8, 16, 4], 2 x float16."""
    nibbles = _padded_outputs(pad_inputs(q, GROUP_INT4))
    nibbles = nibbles.reshape(-1, LANES, nibbles.shape[1] // 8, 2, 4)
    values = nibbles[..., 0, :] | nibbles[..., 1, :] << 4
    return np.ascontiguousarray(values.transpose(0, 2, 1, 3)), _pack_groups(scale), _pack_groups(offset)


def unpack_int4(
    values: np.ndarray, scale: np.ndarray, offset: np.ndarray, n_out: int, n_in: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inverse of `pack_int4`."""
    bytes_ = values.transpose(0, 2, 1, 3)  # [panels, 16, n_in / 8, 4]
    q = np.stack([bytes_ & 15, bytes_ >> 4], axis=3).reshape(-1, 8 * values.shape[1])[:n_out, :n_in]
    return q, _unpack_groups(scale, n_out), _unpack_groups(offset, n_out)


def _pack_groups(rows: np.ndarray) -> np.ndarray:
    """[n_out, n] -> [panels, n, 16]."""
    rows = _padded_outputs(rows)
    return np.ascontiguousarray(rows.reshape(-1, LANES, rows.shape[1]).transpose(0, 2, 1))


def _unpack_groups(panels: np.ndarray, n_out: int) -> np.ndarray:
    """The inverse of `_pack_groups`."""
    rows: np.ndarray = panels.transpose(0, 2, 1).reshape(-1, panels.shape[1])
    return rows[:n_out]


def _padded_outputs(rows: np.ndarray, fill: int = 0) -> np.ndarray:
    n_out = rows.shape[0]
    return np.pad(rows, ((0, padded(n_out, LANES * PANELS) - n_out), (0, 0)), constant_values=fill)
