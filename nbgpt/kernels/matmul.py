"""out = x @ w: tiles of outputs stay in registers while inputs and weights stream by.

A panel is 16 outputs side by side, one register wide; a tile is some rows of activations by one or two panels. Weights
lie in panels, [n_out / 16, n_in, 16], so that one load brings one input's weights for 16 outputs; activations lie in
row tiles, [n_in, height], so that the scalars of one input are neighbours. Integer weights go four inputs at a time:
[n_out / 16, n_in / 4, 16, 4] bytes against [n_in / 4, height, 4] bytes.

Each output is one chain of additions over the inputs in their order, whatever tile it is computed in: the bits of a
row do not depend on how many rows share the call.

In the signatures x = (values, sums, scales) is a row tile and w = (values, scales, offsets) are panels, all pointers
to bytes; a type of weights that has no use for one of them does not read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types

from ..abi.layout import GROUP_INT4, GROUP_INT8, LANES, LOGIT_PLANES, PANELS, ROW_TILE
from ..simd import (
    absolute,
    ahead_tile,
    at,
    cast,
    dot_bytes,
    dot_nibbles,
    floor,
    fma,
    fma_tile,
    high_nibbles,
    kernel,
    largest,
    load,
    low_nibbles,
    maximum,
    round_even,
    row_tile,
    scale_tile,
    splat,
    splat_tile,
    store_quads,
    store_tile,
    stream_tile,
    total,
    zero_dots,
    zero_tile,
)
from ..simd.codegen import TARGET
from ..simd.dots import ADDED, BYTES, NIBBLES


@dataclass(frozen=True)
class Tiles:
    """Shapes that fit the register file: 32 registers of 16 lanes with AVX-512, the equal of 8 without.

    Sums of whole numbers and results share it; results wait in memory while a group is summed. One row, or two, are as
    fast as memory: of whole numbers they take one panel after the other, a straight line, and ask the cache for what
    is near; floats take two, as each multiply-add waits for the one before. All by experiment, see bench/NOTES.md.
    """

    whole: tuple[int, int]  # (rows, panels) for a whole row tile, as prefill has them; the rows divide ROW_TILE
    others: tuple[tuple[int, int, Any], ...]  # (rows, panels, what reads the weights) for what is left, tallest first


_FLOATS_512 = (8, 2, ahead_tile), (4, 2, ahead_tile), (2, 2, ahead_tile)
_AVX512 = {
    "float32": Tiles((ROW_TILE, 2), (*_FLOATS_512, (1, 2, stream_tile))),
    "float16": Tiles((ROW_TILE, 2), (*_FLOATS_512, (1, 2, ahead_tile))),
    "int8": Tiles((6, 2), ((8, 2, ahead_tile), (4, 2, ahead_tile), (2, 1, stream_tile), (1, 1, stream_tile))),
    "int4": Tiles((6, 2), ((4, 2, ahead_tile), (2, 1, stream_tile), (1, 1, stream_tile))),  # nibbles need registers too
}
_FLOATS = (6, 1, ahead_tile), (4, 1, ahead_tile), (2, 2, ahead_tile)
_OTHERS = {
    "float32": Tiles((6, 1), (*_FLOATS, (1, 2, stream_tile))),
    "float16": Tiles((6, 1), (*_FLOATS, (1, 2, ahead_tile))),
    "int8": Tiles((4, 1), ((4, 1, ahead_tile), (3, 1, ahead_tile), (2, 1, ahead_tile), (1, 2, stream_tile))),
    "int4": Tiles((6, 1), ((6, 1, ahead_tile), (3, 1, ahead_tile), (2, 1, ahead_tile), (1, 2, stream_tile))),
}
TILES = _AVX512 if TARGET.avx512 else _OTHERS
_X8, _X4 = BYTES.activations, NIBBLES.activations

MakeTile = Callable[[int, int, Any], Any]
"""(rows, panels, what reads weights) -> a kernel that fills a tile of outputs."""


@dataclass(frozen=True)
class Matmul:
    """What one type of weights needs, as compiled functions."""

    pack_row: Any  # (x, row, height, source, n_in): a row of float32 takes its place in a row tile
    multiply: Any  # (out, out_stride, x, height, w, n_in, panel): out [height, 32] = x @ w of two panels
    group: int  # inputs are padded to a multiple of this many
    value_bytes: int  # of a packed activation
    planes: int = 1  # rows that an activation takes in a tile


def _over_panels(make_tile: MakeTile, rows: int, panels: int, read: Any) -> Any:
    """A tile of all PANELS, at once or one after the other."""
    tile = make_tile(rows, panels, read)
    if panels == PANELS:
        return tile

    @kernel
    def tiles(out, out_stride, x, row, height, w, n_in, panel):
        for i in range(0, PANELS, panels):
            tile(at(out, i * LANES), out_stride, x, row, height, w, n_in, panel + i)

    return tiles


@kernel
def _nothing(out, out_stride, x, row, height, w, n_in, panel):
    pass


def _cover(tile: Any, rows: int, cover_rest: Any) -> Any:
    """Cover the rows from `row` on with a tile, and what it is too tall for otherwise."""

    @kernel
    def cover(out, out_stride, x, row, height, w, n_in, panel):
        while row + rows <= height:
            tile(out, out_stride, x, row, height, w, n_in, panel)
            row += rows
        cover_rest(out, out_stride, x, row, height, w, n_in, panel)

    return cover


def _multiply(make_tile: MakeTile, tiles: Tiles) -> Any:
    """Cover a row tile. Of a whole one only the first part asks the cache for weights to come, of others every part."""
    cover = _nothing
    for rows, panels, read in reversed(tiles.others):
        cover = _cover(_over_panels(make_tile, rows, panels, read), rows, cover)
    rows = tiles.whole[0]
    first_part = _over_panels(make_tile, *tiles.whole, ahead_tile)
    later_part = _over_panels(make_tile, *tiles.whole, row_tile) if rows < ROW_TILE else _nothing

    @kernel
    def multiply(out, out_stride, x, height, w, n_in, panel):
        """out [height, 32] = a row tile @ the panels `panel` and `panel + 1`."""
        if height == ROW_TILE:
            first_part(out, out_stride, x, 0, height, w, n_in, panel)
            for row in range(rows, ROW_TILE, rows):
                later_part(out, out_stride, x, row, height, w, n_in, panel)
        else:
            cover(out, out_stride, x, 0, height, w, n_in, panel)

    return multiply


# --- float32, float16 ------------------------------------------------------------------------------------------------


@kernel
def pack_float_row(x, row, height, source, n_in):  # source [n_in]
    """Copy a row into its tile."""
    values = cast(x[0], types.float32)
    for k in range(n_in):
        values[k * height + row] = source[k]


def _float_tile(dtype: Any) -> MakeTile:
    """out = x @ w: for each input and row a broadcast and a fused multiply-add a panel."""

    def make_tile(rows: int, panels: int, read: Any) -> Any:
        @kernel
        def tile(out, out_stride, x, row, height, w, n_in, panel):
            values = at(cast(x[0], types.float32), row)
            weights = at(cast(w[0], dtype), panel * n_in * LANES)
            sums = zero_tile(rows, panels)
            for k in range(n_in):
                sums = fma_tile(sums, values, k * height, 1, read(weights, k * LANES, n_in * LANES, panels))
            store_tile(out, row * out_stride, out_stride, LANES, sums, panels)

        return tile

    return make_tile


# --- int8, int4: activations in signed bytes, scaled by groups -------------------------------------------------------

_SMALLEST = np.float32(1e-30)  # a group below it is zeros: the inverse of its scale would overflow


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


@kernel
def pack_int8_row(x, row, height, source, n_in):  # source [n_in], zero beyond the inputs that there are
    """Quantize a row; a sum undoes the 128 that is added to each weight."""
    values, sums, scales = cast(x[0], _X8), cast(x[1], types.int32), cast(x[2], types.float32)
    for g in range(n_in // GROUP_INT8):
        start = g * GROUP_INT8
        scale, number = _pack_group(at(values, start * height), row, height, at(source, start), GROUP_INT8)
        scales[g * height + row] = scale
        sums[g * height + row] = types.int32(-ADDED) * types.int32(number)


@kernel
def pack_int16_row(x, row, height, source, n_in):  # source [n_in], zero beyond the inputs that there are
    """Quantize a row to 16 bits in two rows of 8: its values / 256, and the remainders. The matmul's two sums add up.

    The logits deserve it: their share of the error of 8-bit activations is the largest, and they are few in prefill.
    """
    sums, scales = cast(x[1], types.int32), cast(x[2], types.float32)
    shift, down, half = splat(types.float32(256)), splat(types.float32(1 / 256)), splat(types.float32(0.5))
    for g in range(n_in // GROUP_INT8):
        group, values = at(source, g * GROUP_INT8), at(cast(x[0], _X8), g * GROUP_INT8 * height)
        amax = largest_magnitude(group, GROUP_INT8)
        inverse = splat(types.float32(32512) / amax if amax > _SMALLEST else types.float32(0))
        high_sums = low_sums = splat(types.float32(0))
        for k in range(0, GROUP_INT8, LANES):
            numbers = round_even(load(group, k) * inverse)
            high = floor(fma(numbers, down, half))  # the remainder lies in -128..127
            low = numbers - high * shift
            store_quads(values, k * height + 4 * row, 4 * height, high)
            store_quads(values, k * height + 4 * (row + 1), 4 * height, low)
            high_sums, low_sums = high_sums + high, low_sums + low
        place = g * height + row
        scales[place], scales[place + 1] = amax / types.float32(127), amax / types.float32(32512)
        sums[place] = types.int32(-ADDED) * types.int32(total(high_sums))
        sums[place + 1] = types.int32(-ADDED) * types.int32(total(low_sums))


@kernel
def pack_int4_row(x, row, height, source, n_in):  # source [n_in], zero beyond the inputs that there are
    """Quantize a row; a sum, in units of the activations, is what the weights' offsets multiply."""
    values, sums, scales = cast(x[0], _X4), cast(x[1], types.float32), cast(x[2], types.float32)
    for g in range(n_in // GROUP_INT4):
        start = g * GROUP_INT4
        scale, number = _pack_group(at(values, start * height), row, height, at(source, start), GROUP_INT4)
        scales[g * height + row] = scale
        sums[g * height + row] = scale * number


def _int8_tile(rows: int, panels: int, read: Any) -> Any:
    """out = sum over groups of x_scale w_scale (x @ (w + 128) - 128 sum(x)), in brackets whole numbers and exact."""

    @kernel
    def tile(out, out_stride, x, row, height, w, n_in, panel):
        groups = n_in // GROUP_INT8
        values, sums = at(cast(x[0], _X8), 4 * row), at(cast(x[1], types.int32), row)
        x_scales = at(cast(x[2], types.float32), row)
        weights = at(w[0], panel * n_in * LANES)
        w_scales = at(cast(w[1], types.uint16), panel * groups * LANES)
        result = zero_tile(rows, panels)
        for g in range(groups):
            dots = splat_tile(sums, g * height, 1, rows, panels)
            for k in range(g * GROUP_INT8, (g + 1) * GROUP_INT8, 4):
                dots = dot_bytes(dots, values, k * height, 4, read(weights, k * LANES, n_in * LANES, panels))
            scales = read(w_scales, g * LANES, groups * LANES, panels)
            result = scale_tile(result, dots, x_scales, g * height, 1, scales)
        store_tile(out, row * out_stride, out_stride, LANES, result, panels)

    return tile


def _int4_tile(rows: int, panels: int, read: Any) -> Any:
    """out = sum over groups of x_scale w_scale (x @ w) + w_offset (x_scale sum(x)), w from 0 to 15."""

    @kernel
    def tile(out, out_stride, x, row, height, w, n_in, panel):
        groups = n_in // GROUP_INT4
        values, sums = at(cast(x[0], _X4), 4 * row), at(cast(x[1], types.float32), row)
        x_scales = at(cast(x[2], types.float32), row)
        weights = at(w[0], panel * n_in * LANES // 2)
        w_scales = at(cast(w[1], types.uint16), panel * groups * LANES)
        w_offsets = at(cast(w[2], types.uint16), panel * groups * LANES)
        result = zero_tile(rows, panels)
        for g in range(groups):
            dots = zero_dots(rows, panels)
            for k in range(g * GROUP_INT4, min(n_in, (g + 1) * GROUP_INT4), 8):
                both = read(weights, k * LANES // 2, n_in * LANES // 2, panels)
                dots = dot_nibbles(dots, values, k * height, 4, low_nibbles(both))
                dots = dot_nibbles(dots, values, (k + 4) * height, 4, high_nibbles(both))
            scales = read(w_scales, g * LANES, groups * LANES, panels)
            offsets = read(w_offsets, g * LANES, groups * LANES, panels)
            result = fma_tile(result, sums, g * height, 1, offsets)
            result = scale_tile(result, dots, x_scales, g * height, 1, scales)
        store_tile(out, row * out_stride, out_stride, LANES, result, panels)

    return tile


_float32_multiply = _multiply(_float_tile(types.float32), TILES["float32"])
_float16_multiply = _multiply(_float_tile(types.uint16), TILES["float16"])
_int8_multiply, _int4_multiply = _multiply(_int8_tile, TILES["int8"]), _multiply(_int4_tile, TILES["int4"])
_X8_BYTES, _X4_BYTES = _X8.bitwidth // 8, _X4.bitwidth // 8
MATMULS = {
    "float32": Matmul(pack_float_row, _float32_multiply, 1, 4),
    "float16": Matmul(pack_float_row, _float16_multiply, 1, 4),
    "int8": Matmul(pack_int8_row, _int8_multiply, GROUP_INT8, _X8_BYTES),
    "int4": Matmul(pack_int4_row, _int4_multiply, GROUP_INT4, _X4_BYTES),
}
"""For the blocks, by the type of the weights."""
HEAD_MATMULS = {
    **MATMULS,
    "int8": Matmul(pack_int16_row, _int8_multiply, GROUP_INT8, _X8_BYTES, LOGIT_PLANES["int8"]),
}
"""For the logits."""
