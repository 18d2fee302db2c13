"""out = x @ w: a tile of outputs stays in registers while inputs and weights stream through.

A panel is 16 outputs, one register wide. A tile is some rows of activations by one or two panels. Weights are stored in
panels, [n_out / 16, n_in, 16]: one load reads the weights of one input for 16 outputs. Activations are stored in row
tiles, [n_in, height]: the scalars of one input are neighbours. bfloat16 weights stand in pairs of inputs,
[n_out / 16, n_in / 2, 16, 2]. Integer weights take four inputs at a time: [n_out / 16, n_in / 4, 16, 4] bytes against
[n_in / 4, height, 4] bytes.

Each output is one chain of additions over the inputs, blocks or groups in their order, in every kind of tile: the bits
of a row do not depend on the number of rows of the call.

In the signatures x = (values, sums, scales) is a row tile and w = (values, scales, offsets) are panels, all pointers to
bytes. A type of weights that has no sums, scales or offsets does not read them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numba import types

from ..abi.layout import BLOCK_BFLOAT16, GROUP_INT4, GROUP_INT8, LANES, LOGIT_PLANES, PANELS
from ..simd import (
    add_tile,
    ahead_tile,
    at,
    cast,
    dot_bytes,
    dot_nibbles,
    dot_pairs,
    even_bfloats,
    even_pairs,
    fma_tile,
    high_nibbles,
    kernel,
    low_nibbles,
    odd_bfloats,
    odd_pairs,
    row_tile,
    scale_tile,
    splat_tile,
    store_tile,
    stream_tile,
    zero_dots,
    zero_tile,
)
from ..simd.codegen import TARGET
from .row_tiles import (
    X4,
    X8,
    pack_bfloat16_pairs,
    pack_bfloat16_row,
    pack_float_row,
    pack_int4_row,
    pack_int8_row,
    pack_int16_row,
)


@dataclass(frozen=True)
class Tiles:
    """Tile shapes that fit the register file: 32 registers of 16 lanes with AVX-512, the equivalent of 8 without.

    Integer tiles hold integer sums and float results; results wait in memory while a group is summed. One or two rows
    run at memory bandwidth. With integers they read one panel after the other, linearly; with floats two panels at
    once, as each multiply-add waits for the previous one. All shapes were found by measurement: see bench/NOTES.md.
    """

    height: int  # rows of a whole row tile
    whole: tuple[int, int]  # (rows, panels) of the tiles of a whole row tile, as in prefill; the rows divide its height
    others: tuple[tuple[int, int, Any], ...]  # (rows, panels, read) for fewer rows, tallest first; read as in MakeTile


_FLOATS_512 = (8, 2, ahead_tile), (4, 2, ahead_tile), (2, 2, ahead_tile)
_AVX512 = {
    "float32": Tiles(12, (12, 2), (*_FLOATS_512, (1, 2, stream_tile))),
    "float16": Tiles(16, (16, 1), ((12, 2, ahead_tile), *_FLOATS_512, (1, 2, ahead_tile))),
    "bfloat16": Tiles(12, (12, 1), ((8, 1, ahead_tile), (4, 1, stream_tile), (2, 1, stream_tile), (1, 1, stream_tile))),
    "int8": Tiles(16, (16, 1), ((8, 2, ahead_tile), (4, 2, ahead_tile), (2, 1, stream_tile), (1, 1, stream_tile))),
    "int4": Tiles(16, (16, 1), ((4, 2, ahead_tile), (2, 1, stream_tile), (1, 1, stream_tile))),  # unpacking: registers
}
_FLOATS = (6, 1, ahead_tile), (4, 1, ahead_tile), (2, 2, ahead_tile)
_OTHERS = {
    "float32": Tiles(12, (6, 1), (*_FLOATS, (1, 2, stream_tile))),
    "float16": Tiles(12, (6, 1), (*_FLOATS, (1, 2, ahead_tile))),
    "bfloat16": Tiles(12, (6, 1), (*_FLOATS[:2], (2, 1, stream_tile), (1, 1, stream_tile))),
    "int8": Tiles(12, (4, 1), ((4, 1, ahead_tile), (3, 1, ahead_tile), (2, 1, ahead_tile), (1, 2, stream_tile))),
    "int4": Tiles(12, (6, 1), ((6, 1, ahead_tile), (3, 1, ahead_tile), (2, 1, ahead_tile), (1, 2, stream_tile))),
}
_BF16 = {
    **_AVX512,
    "bfloat16": Tiles(12, (12, 2), ((8, 1, ahead_tile), (4, 1, stream_tile), (2, 1, stream_tile), (1, 1, stream_tile))),
}
TILES = _BF16 if TARGET.bf16 else _AVX512 if TARGET.avx512 else _OTHERS

MakeTile = Callable[[int, int, Any], Any]
"""(rows, panels, read) -> a kernel that computes a tile of outputs; read loads a row of weights: see simd/tiles.py."""


@kernel
def _multiply_none(out, out_stride, x, n_tiles, w, n_in, panel):
    return 0


@kernel
def _no_registers(n_rows):
    pass


@dataclass(frozen=True)
class Matmul:
    """The kernels of one type of weights."""

    pack_row: Any  # (x, row, height, source, n_in): packs float32 source [n_in] as a row of a row tile
    multiply: Any  # (out, out_stride, x, height, w, n_in, panel): out [height, 32] = x @ w of two panels
    height: int  # rows of a whole row tile
    group: int  # inputs are padded to a multiple of this many
    value_bytes: int  # of a packed activation
    planes: int = 1  # rows of a tile that one input row takes
    multiply_whole: Any = _multiply_none  # (out, out_stride, x, n_tiles, w, n_in, panel): how many of n_tiles whole row
    # tiles, one behind the other, it has multiplied: all, or none, which are left to `multiply`
    begin: Any = _no_registers  # (n_rows): what a thread does before its first product of a phase
    end: Any = _no_registers  # (n_rows): what it does after its last


def _over_panels(make_tile: MakeTile, rows: int, panels: int, read: Any) -> Any:
    """A tile of all PANELS, computed `panels` at a time."""
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
    """Compute rows with this tile while it fits, and the remaining rows with cover_rest."""

    @kernel
    def cover(out, out_stride, x, row, height, w, n_in, panel):
        while row + rows <= height:
            tile(out, out_stride, x, row, height, w, n_in, panel)
            row += rows
        cover_rest(out, out_stride, x, row, height, w, n_in, panel)

    return cover


def _multiply(make_tile: MakeTile, tiles: Tiles) -> Any:
    """Multiply a row tile. In a whole tile only the first part prefetches weights; with fewer rows every part does."""
    cover = _nothing
    for rows, panels, read in reversed(tiles.others):
        cover = _cover(_over_panels(make_tile, rows, panels, read), rows, cover)
    whole, rows = tiles.height, tiles.whole[0]
    first_part = _over_panels(make_tile, *tiles.whole, ahead_tile)
    later_part = _over_panels(make_tile, *tiles.whole, row_tile) if rows < whole else _nothing

    @kernel
    def multiply(out, out_stride, x, height, w, n_in, panel):
        """out [height, 32] = a row tile @ the panels `panel` and `panel + 1`."""
        if height == whole:
            first_part(out, out_stride, x, 0, height, w, n_in, panel)
            for row in range(rows, whole, rows):
                later_part(out, out_stride, x, row, height, w, n_in, panel)
        else:
            cover(out, out_stride, x, 0, height, w, n_in, panel)

    return multiply


# --- float32, float16 ------------------------------------------------------------------------------------------------


def _float_tile(dtype: Any) -> MakeTile:
    """out = x @ w: for each input and row, one broadcast and one fused multiply-add per panel."""

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


# --- bfloat16: bfloat16 activations -----------------------------------------------------------------------------------
#
# The sums are those that AMX's tdpbf16ps defines: the even and the odd inputs of a block each in a chain of their own.
# It counts denormal numbers as 0, which other CPUs do in a special mode only, and ARM's before it rounds. So no number
# is denormal here: weights are 0 or at least 2^-64, activations 0 or at least 2^-48, and both have 8 bits; so their
# products, and all sums of these, are multiples of 2^-126, the least normal float32. Nor does it matter whether a
# multiply-add is fused: a product has 16 bits, which float32 holds.
#
# Where one instruction does two multiply-adds, one after the other, a chain takes two inputs at a time.


_CHAINS = 24 if TARGET.avx512 else 4  # registers of sums that leave room for the rest


def _bfloat16_tile(rows: int, panels: int, read: Any) -> Any:
    """out = sum over blocks of (sum over even inputs of x w + sum over odd inputs of x w).

    Both chains grow together if their registers suffice; else the odd one after the even one, reading weights again.
    """
    together = 2 * rows * panels <= _CHAINS

    @kernel
    def tile(out, out_stride, x, row, height, w, n_in, panel):
        pairs, values = n_in // 2, at(cast(x[0], types.float32), row)
        weights = at(cast(w[0], types.uint32), panel * pairs * LANES)
        result = zero_tile(rows, panels)
        for block in range(0, pairs, BLOCK_BFLOAT16 // 2):
            even = odd = zero_tile(rows, panels)
            for k in range(block, block + BLOCK_BFLOAT16 // 2):
                both = read(weights, k * LANES, pairs * LANES, panels)
                even = fma_tile(even, values, 2 * k * height, 1, even_bfloats(both))
                if together:
                    odd = fma_tile(odd, values, (2 * k + 1) * height, 1, odd_bfloats(both))
            if not together:
                for k in range(block, block + BLOCK_BFLOAT16 // 2):
                    both = row_tile(weights, k * LANES, pairs * LANES, panels)
                    odd = fma_tile(odd, values, (2 * k + 1) * height, 1, odd_bfloats(both))
            result = add_tile(result, add_tile(even, odd))
        store_tile(out, row * out_stride, out_stride, LANES, result, panels)

    return tile


def _bfloat16_pairs_tile(rows: int, panels: int, read: Any) -> Any:
    """The same, two inputs of a chain at a time."""
    together = 2 * rows * panels <= _CHAINS

    @kernel
    def tile(out, out_stride, x, row, height, w, n_in, panel):
        pairs, values = n_in // 2, at(cast(x[0], types.uint32), row)
        weights = at(cast(w[0], types.uint32), panel * pairs * LANES)
        result = zero_tile(rows, panels)
        for block in range(0, pairs, BLOCK_BFLOAT16 // 2):
            even = odd = zero_tile(rows, panels)
            for k in range(block, block + BLOCK_BFLOAT16 // 2, 2):
                this = read(weights, k * LANES, pairs * LANES, panels)
                other = read(weights, (k + 1) * LANES, pairs * LANES, panels)
                even = dot_pairs(even, values, k * height, 1, even_pairs(this, other))
                if together:
                    odd = dot_pairs(odd, values, (k + 1) * height, 1, odd_pairs(this, other))
            if not together:
                for k in range(block, block + BLOCK_BFLOAT16 // 2, 2):
                    this = row_tile(weights, k * LANES, pairs * LANES, panels)
                    other = row_tile(weights, (k + 1) * LANES, pairs * LANES, panels)
                    odd = dot_pairs(odd, values, (k + 1) * height, 1, odd_pairs(this, other))
            result = add_tile(result, add_tile(even, odd))
        store_tile(out, row * out_stride, out_stride, LANES, result, panels)

    return tile


# --- int8, int4: int8 activations, scaled by groups ------------------------------------------------------------------


def _int8_tile(rows: int, panels: int, read: Any) -> Any:
    """out = sum over groups of x_scale w_scale (x @ (w + 128) - 128 sum(x)); the bracket is an exact integer."""

    @kernel
    def tile(out, out_stride, x, row, height, w, n_in, panel):
        groups, first = n_in // GROUP_INT8, panel * n_in * LANES
        values, sums = at(cast(x[0], X8), 4 * row), at(cast(x[1], types.int32), row)
        x_scales = at(cast(x[2], types.float32), row)
        weights, w_scales = at(w[0], first), at(cast(w[1], types.uint16), first // GROUP_INT8)
        result = zero_tile(rows, panels)
        for g in range(groups):  # a kernel for the body would make decode 6 % slower: see bench/NOTES.md
            dots = splat_tile(sums, g * height, 1, rows, panels)
            for k in range(g * GROUP_INT8, (g + 1) * GROUP_INT8, 4):
                dots = dot_bytes(dots, values, k * height, 4, read(weights, k * LANES, n_in * LANES, panels))
            scales = read(w_scales, g * LANES, groups * LANES, panels)
            result = scale_tile(result, dots, x_scales, g * height, 1, scales)
        store_tile(out, row * out_stride, out_stride, LANES, result, panels)

    return tile


def _int4_tile(rows: int, panels: int, read: Any) -> Any:
    """out = sum over groups of w_offset (x_scale sum(x)) + x_scale w_scale (x @ w), w in 0..15."""

    @kernel
    def tile(out, out_stride, x, row, height, w, n_in, panel):
        groups, first = n_in // GROUP_INT4, panel * n_in * LANES
        values, sums = at(cast(x[0], X4), 4 * row), at(cast(x[1], types.float32), row)
        x_scales = at(cast(x[2], types.float32), row)
        weights = at(w[0], first // 2)
        w_scales = at(cast(w[1], types.uint16), first // GROUP_INT4)
        w_offsets = at(cast(w[2], types.uint16), first // GROUP_INT4)
        result = zero_tile(rows, panels)
        for g in range(groups):
            dots = zero_dots(rows, panels)
            for k in range(g * GROUP_INT4, min(n_in, (g + 1) * GROUP_INT4), 8):  # min: unrolled, it would be slower
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
_bfloat16_multiply = _multiply(_bfloat16_pairs_tile if TARGET.bf16 else _bfloat16_tile, TILES["bfloat16"])
_pack_bfloat16, _BFLOAT16_BYTES = (pack_bfloat16_pairs, 2) if TARGET.bf16 else (pack_bfloat16_row, 4)
_int8_multiply, _int4_multiply = _multiply(_int8_tile, TILES["int8"]), _multiply(_int4_tile, TILES["int4"])
_X8_BYTES, _X4_BYTES = X8.bitwidth // 8, X4.bitwidth // 8
MATMULS = {
    "float32": Matmul(pack_float_row, _float32_multiply, TILES["float32"].height, 1, 4),
    "float16": Matmul(pack_float_row, _float16_multiply, TILES["float16"].height, 1, 4),
    "bfloat16": Matmul(_pack_bfloat16, _bfloat16_multiply, TILES["bfloat16"].height, BLOCK_BFLOAT16, _BFLOAT16_BYTES),
    "int8": Matmul(pack_int8_row, _int8_multiply, TILES["int8"].height, GROUP_INT8, _X8_BYTES),
    "int4": Matmul(pack_int4_row, _int4_multiply, TILES["int4"].height, GROUP_INT4, _X4_BYTES),
}
"""The matmuls of the blocks, by the type of the weights."""
HEAD_MATMULS = {
    **MATMULS,
    "int8": Matmul(pack_int16_row, _int8_multiply, TILES["int8"].height, GROUP_INT8, _X8_BYTES, LOGIT_PLANES["int8"]),
}
"""The matmul of the LM head, by the type of its weights."""
