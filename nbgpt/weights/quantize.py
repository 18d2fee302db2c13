"""Quantization: the definition of int8 and int4 matrices.

A matrix is float32 [n_out, n_in]: an output is a row. int8 keeps whole numbers from -127 to 127 and a scale for every
output and every 64 inputs: w = q * scale. int4 keeps 0 to 15 and an offset besides, for every 32 inputs:
w = q * scale + offset. Scales and offsets are float16. Every output is quantized by itself, so a large matrix can
come in pieces.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from ..abi.layout import GROUP_INT4, GROUP_INT8, padded

FLOAT16_MAX = 65504.0
_SMALLEST_SCALE = np.float32(2.0**-24)  # the least that float16 holds
_LARGEST_INT8 = 127 * FLOAT16_MAX
_LARGEST_INT4 = 32768.0  # the offset, a little outside the range of the weights, must fit float16
_MARGINS = (-0.02, 0.01, 0.04, 0.07, 0.10)  # of a group's range, cut off at either end; a negative one widens it
_REFINEMENTS = 3
_CHUNK = 1 << 16  # weights that are searched at a time: they fit in the second-level cache


def quantize_int8(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round float32 w [n_out, n_in] to the nearest -> int8 [n_out, n_in], scales float16 [n_out, groups].

    The largest weight of a group becomes 127 (a search for better scales gains 3 % of the error and no perplexity).
    Raises ValueError if a weight is not finite or too large for the scales.
    """
    n_out, n_in = w.shape
    q = np.empty((n_out, n_in), np.int8)
    scale = np.empty((n_out, padded(n_in, GROUP_INT8) // GROUP_INT8), np.float16)
    for rows in _chunks(n_out, n_in):
        check_range(w[rows], _LARGEST_INT8, "int8")
        groups = _in_groups(w[rows], GROUP_INT8)
        largest = np.abs(groups).max(axis=-1)
        step = np.where(largest > 0, np.maximum(_as_float16(largest / np.float32(127)), _SMALLEST_SCALE), np.float32(0))
        scale[rows] = step
        groups /= np.where(step > 0, step, 1)[..., None]
        q[rows] = _as_rows(np.clip(np.rint(groups), -127, 127), n_in)
    return q, scale


def dequantize_int8(q: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """int8 [n_out, n_in], scales [n_out, groups] -> float32 [n_out, n_in]."""
    w: np.ndarray = q * _per_input(scale, GROUP_INT8, q.shape[1])
    return w


def quantize_int4(w: np.ndarray, importance: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round with the least squared error -> uint8 [n_out, n_in] of 0..15, scales, offsets float16 [n_out, groups].

    importance: weight of the squared error at each input, float32 [n_in]; ideally the input's mean square.
    Raises ValueError if a weight is not finite or too large.
    """
    check_int4(w)
    n_out, n_in = w.shape
    weight = np.ones(n_in, np.float32) if importance is None else importance.astype(np.float32)
    weight = pad_inputs(weight[None], GROUP_INT4).reshape(-1, GROUP_INT4)  # [groups, 32], 0 where no input is
    q = np.empty((n_out, n_in), np.uint8)
    scale, offset = np.empty((2, n_out, len(weight)), np.float16)
    for rows in _chunks(n_out, n_in):
        groups = _in_groups(w[rows], GROUP_INT4)
        scales, offsets = fit_int4(groups, weight)
        scale[rows], offset[rows] = scales, offsets
        q[rows] = _as_rows(round_int4(groups, scales[..., None], offsets[..., None]), n_in)
    return q, scale, offset


def dequantize_int4(q: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """uint8 [n_out, n_in], scales and offsets [n_out, groups] -> float32 [n_out, n_in]."""
    n_in = q.shape[1]
    w: np.ndarray = q * _per_input(scale, GROUP_INT4, n_in) + _per_input(offset, GROUP_INT4, n_in)
    return w


def check_int4(w: np.ndarray) -> None:
    """Raise ValueError unless int4 can hold w."""
    for rows in _chunks(*w.shape):
        check_range(w[rows], _LARGEST_INT4, "int4")


def fit_int4(groups: np.ndarray, importance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and offsets, float32 [...] that float16 holds, for float32 groups [..., n]; importance [..., n].

    Tries ranges a little wider or narrower than that of the weights, then refines the best by alternation: round the
    weights with this scale and offset, then fit scale and offset to the rounded numbers by least squares.
    """
    total = importance.sum(axis=-1, keepdims=True)
    importance = np.where(total > 0, importance / np.where(total > 0, total, 1), np.float32(1 / groups.shape[-1]))
    low, high = groups.min(axis=-1), groups.max(axis=-1)
    span = high - low
    mean = _weighted_sum(groups, importance)
    centred = groups - mean[..., None]
    best_scale, best_offset = np.zeros_like(low), np.zeros_like(low)
    least = np.full_like(low, np.inf)

    def consider(scale: np.ndarray, offset: np.ndarray) -> None:
        scale, offset = _as_float16(scale), _as_float16(offset)
        q = round_int4(groups, scale[..., None], offset[..., None])
        q *= scale[..., None]
        q += offset[..., None]
        q -= groups
        q *= q
        error = _weighted_sum(q, importance)
        better = error < least
        for best, value in ((least, error), (best_scale, scale), (best_offset, offset)):
            np.copyto(best, value, where=better)

    for below, above in itertools.product(_MARGINS, _MARGINS):
        bottom = low + np.float32(below) * span
        consider((high - np.float32(above) * span - bottom) / np.float32(15), bottom)
    for _ in range(_REFINEMENTS):
        q = round_int4(groups, best_scale[..., None], best_offset[..., None])
        q_mean = _weighted_sum(q, importance)
        covariance = _weighted_sum(q * centred, importance)
        variance = _weighted_sum(q * q, importance) - q_mean * q_mean
        slope = np.where(variance > 0, covariance / np.where(variance > 0, variance, 1), best_scale)
        consider(slope, mean - slope * q_mean)
    return best_scale, best_offset


def round_int4(x: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The nearest numbers 0..15 for weights x, as float32; shapes broadcast."""
    q: np.ndarray = (x - offset) / np.where(scale > 0, scale, 1)
    np.rint(q, out=q)
    np.clip(q, 0, 15, out=q)
    return q


def equalize(gain: np.ndarray, bias: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Factors float32 [n_in] by which to multiply a LayerNorm's gain and bias [n_in], and divide w [n_out, n_in].

    The model computes the same, but in each channel the activations and the weights become equally large, so that no
    channel dominates the scale of its group in either. The result does not depend on how a channel's magnitude was
    divided between LayerNorm and w before. It costs nothing at run time.
    After Xiao et al. 2022, "SmoothQuant", with the LayerNorm's parameters in place of measured activations.
    """
    n_out, n_in = w.shape
    squares = np.zeros(n_in)
    for rows in _chunks(n_out, n_in):
        part = w[rows].astype(np.float64)
        squares += np.einsum("oi,oi->i", part, part)
    weight, activation = np.sqrt(squares / n_out), np.hypot(gain.astype(np.float64), bias)
    size = np.sqrt(weight * activation)  # the magnitude that both get
    least = size[size > 0].min(initial=np.inf)
    if least == np.inf:  # no channel is nonzero in both
        return np.ones(n_in, np.float32)
    size = np.maximum(size, least)  # a channel that is zero in one of them must not dominate in the other
    scale: np.ndarray = np.where(weight > 0, weight / size, size / np.where(activation > 0, activation, size))
    return scale.astype(np.float32)


def pad_inputs(rows: np.ndarray, group: int, fill: int = 0) -> np.ndarray:
    """rows [n, n_in] with n_in padded to a multiple of the group."""
    n_in = rows.shape[1]
    return np.pad(rows, ((0, 0), (0, padded(n_in, group) - n_in)), constant_values=fill)


def _in_groups(w: np.ndarray, group: int) -> np.ndarray:
    """float32 [n_out, n_in] -> a copy [n_out, groups, group]; padding repeats the last input, within the range."""
    n_out, n_in = w.shape
    return np.pad(w, ((0, 0), (0, padded(n_in, group) - n_in)), mode="edge").reshape(n_out, -1, group)


def _chunks(n_out: int, n_in: int) -> Iterator[slice]:
    """Slices of outputs whose weights fit in the CPU's cache."""
    step = max(1, _CHUNK // n_in)
    return (slice(start, start + step) for start in range(0, n_out, step))


def _as_rows(groups: np.ndarray, n_in: int) -> np.ndarray:
    return groups.reshape(groups.shape[0], -1)[:, :n_in]


def _per_input(scale: np.ndarray, group: int, n_in: int) -> np.ndarray:
    """[n_out, groups] -> float32 [n_out, n_in]."""
    return np.repeat(scale.astype(np.float32), group, axis=1)[:, :n_in]


def _weighted_sum(x: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    total: np.ndarray = np.einsum("...i,...i->...", x, importance)
    return total


def _as_float16(x: np.ndarray) -> np.ndarray:
    """float32 rounded to what float16 holds."""
    return x.astype(np.float16).astype(np.float32)


def check_range(w: np.ndarray, largest: float, dtype: str) -> None:
    """Raise ValueError for weights that are not finite, or too large for the dtype."""
    if not np.isfinite(w).all():
        raise ValueError(f"weights hold {w[~np.isfinite(w)][0]}: they are broken, fetch them again")
    if w.size and (reach := float(np.abs(w).max())) > largest:
        raise ValueError(f"weights reach {reach:.3g}; {dtype} holds {largest:.3g} at most: choose float32")
