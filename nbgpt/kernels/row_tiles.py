"""Row tiles: rows of activations, packed for the matmuls as the weights of each type want them.

A row tile has `height` rows, [n_in, height]: the scalars of one input are neighbours. Where weights are whole numbers,
activations are too, four inputs of a row together, [n_in / 4, height, 4], with a scale and a sum for each group.

In the signatures x = (values, sums, scales) is a row tile, all pointers to bytes, and source [n_in] is a row in float32
that is zero beyond the model's inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from ..abi.layout import GROUP_INT4, GROUP_INT8, LANES, LEAST_ACTIVATION
from ..simd import (
    absolute,
    at,
    cast,
    floor,
    fma,
    kernel,
    largest,
    load,
    maximum,
    pair_bfloats,
    round_bfloat,
    round_even,
    splat,
    store_apart,
    store_quads,
    total,
    zero_below,
)
from ..simd.dots import ADDED, BYTES, NIBBLES

X8, X4 = BYTES.activations, NIBBLES.activations
"""Types of the activations that int8 and int4 weights are multiplied by."""


@kernel
def pack_float_row(x, row, height, source, n_in):
    """Copy a row into a row tile."""
    values = cast(x[0], types.float32)
    for k in range(n_in):
        values[k * height + row] = source[k]


@kernel
def bfloats(source, k):
    """16 inputs from source + k, rounded to bfloat16, and magnitudes below 2^-48 to 0."""
    return round_bfloat(zero_below(load(source, k), splat(types.float32(LEAST_ACTIVATION))))


@kernel
def pack_bfloat16_row(x, row, height, source, n_in):
    """Round a row to bfloat16; a row tile has them as float32, as `fma` takes them."""
    values = cast(x[0], types.float32)
    for k in range(0, n_in, LANES):
        store_apart(values, k * height + row, height, bfloats(source, k))


@kernel
def pack_bfloat16_pairs(x, row, height, source, n_in):
    """The same as bfloat16, [n_in / 2, height] pairs of two even or two odd inputs, as `dot_pairs` takes them."""
    pairs = cast(x[0], types.uint32)
    for k in range(0, n_in, 2 * LANES):
        pair = pair_bfloats(bfloats(source, k), bfloats(source, k + LANES))
        store_apart(pairs, k // 2 * height + row, height, pair)


# --- Whole numbers, scaled by groups ----------------------------------------------------------------------------------

_SMALLEST = np.float32(1e-30)  # a group with no larger magnitude is packed as zeros: 1 / its scale would overflow


@kernel
def largest_magnitude(x, n):  # x [n], n a multiple of 16
    """max |x|."""
    top = splat(types.float32(0))
    for k in range(0, n, LANES):
        top = maximum(top, absolute(load(x, k)))
    return largest(top)


@kernel
def _pack_group(values, row, height, source, group):
    """Quantize the inputs of one group to -127..127; returns their scale and their sum."""
    amax = largest_magnitude(source, group)
    inverse = splat(types.float32(127) / amax if amax > _SMALLEST else types.float32(0))
    sums = splat(types.float32(0))
    for k in range(0, group, LANES):
        numbers = round_even(load(source, k) * inverse)
        sums = sums + numbers
        store_quads(values, k * height + 4 * row, 4 * height, numbers)
    return amax / types.float32(127), total(sums)


def _make_pack_row(group: int, value_type: Any, sum_type: Any, stored_sum: Any) -> Any:
    """Quantize a row; stored_sum(scale, sum) is what the matmul of this type of weights needs of a group's sum."""

    @kernel
    def pack_row(x, row, height, source, n_in):
        values, sums, scales = cast(x[0], value_type), cast(x[1], sum_type), cast(x[2], types.float32)
        for g in range(n_in // group):
            start = g * group
            scale, number = _pack_group(at(values, start * height), row, height, at(source, start), group)
            scales[g * height + row] = scale
            sums[g * height + row] = stored_sum(scale, number)

    return pack_row


@kernel
def _minus_added(scale, number):
    """Undoes the 128 that is added to each int8 weight."""
    return types.int32(-ADDED) * types.int32(number)


@kernel
def _scaled(scale, number):
    """The sum in units of the activations: the factor of an int4 group's offset."""
    return scale * number


pack_int8_row = _make_pack_row(GROUP_INT8, X8, types.int32, _minus_added)
pack_int4_row = _make_pack_row(GROUP_INT4, X4, types.float32, _scaled)


@kernel
def pack_int16(x, row, height, source, n_in, next_plane):
    """Quantize a row to 16 bits in two rows of 8: value / 256, and the remainder. The products of both add up.

    Only the LM head does so: it causes most of the error of int8 activations, and prefill computes few logits.
    next_plane: places from a quad to that of the remainder.
    """
    sums, scales = cast(x[1], types.int32), cast(x[2], types.float32)
    shift, down, half = splat(types.float32(256)), splat(types.float32(1 / 256)), splat(types.float32(0.5))
    for g in range(n_in // GROUP_INT8):
        group, values = at(source, g * GROUP_INT8), at(cast(x[0], X8), g * GROUP_INT8 * height)
        amax = largest_magnitude(group, GROUP_INT8)
        inverse = splat(types.float32(32512) / amax if amax > _SMALLEST else types.float32(0))
        high_sums = low_sums = splat(types.float32(0))
        for k in range(0, GROUP_INT8, LANES):
            numbers = round_even(load(group, k) * inverse)
            high = floor(fma(numbers, down, half))  # the remainder is in -128..127
            low = numbers - high * shift
            store_quads(values, k * height + 4 * row, 4 * height, high)
            store_quads(values, k * height + 4 * row + next_plane, 4 * height, low)
            high_sums, low_sums = high_sums + high, low_sums + low
        i = g * height + row
        scales[i], scales[i + 1] = amax / types.float32(127), amax / types.float32(32512)
        sums[i] = _minus_added(scales[i], total(high_sums))
        sums[i + 1] = _minus_added(scales[i + 1], total(low_sums))


@kernel
def pack_int16_row(x, row, height, source, n_in):
    """Quantize a row to 16 bits; its two rows are neighbours in a row tile."""
    pack_int16(x, row, height, source, n_in, 4)
