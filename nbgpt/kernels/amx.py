"""int8 and int4 products by AMX, for whole row tiles, with the bits of the vector kernels.

A tile register holds the 16 rows of a row tile and a group of their inputs, or a panel's weights for these inputs, or
the products of both, 16 x 16 sums. The sums are exact whole numbers, as the vector kernels' are, and are scaled by the
same operations in the same order. Rows that fill no row tile are the vector kernels'.

A step is a row tile, two panels and STEP groups of inputs: their sums go to memory, and are scaled and added to the
output while the next step is multiplied. All row tiles take their turn with the same groups of weights, so that these
stay in the cache.

int8 weights are tiles as they lie in the file, [16, 16, 4] bytes for a group and panel. int4 weights are unpacked to
such tiles, of 8 rows, once for all row tiles. The values of a whole row tile are laid out for the registers, [n_groups,
16 rows, group].

Off by default (NBGPT_AMX=1), because no CPU with AMX was at hand: the speed was not measured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numba import types

from ..abi.layout import GROUP_INT4, GROUP_INT8, LANES, PANELS
from ..simd import (
    add_dots,
    at,
    cast,
    fma_tile,
    high_nibbles,
    kernel,
    load_dots,
    load_tile,
    low_nibbles,
    row_tile,
    scale_tile,
    splat_tile,
    stack_bytes,
    store_bytes,
    store_tile,
    zero_tile,
)
from ..simd.amx import AMX, TILE_ROW_BYTES, TILE_ROWS, Shapes, TileUnit
from ..simd.codegen import TARGET
from . import matmul
from .matmul import Matmul
from .row_tiles import pack_int16
from .rows import ceil_div

_STEP = 4  # groups
_HALF = TILE_ROWS // 2  # rows whose results, of two panels, stay in registers while the groups of a step are scaled
_SUMS = TILE_ROWS * LANES  # of a group and panel
_SUM_BYTES = 4 * _SUMS
_STEP_BYTES = _STEP * PANELS * _SUM_BYTES
_TWO_STEPS_BYTES = 2 * _STEP_BYTES

# Registers: results of two panels, of one group and of the next, so that no product waits until the one before it is
# stored; the activations of both groups; the weights of two panels.
_EVEN, _ODD = (0, 1, 4, 6, 7), (2, 3, 5, 6, 7)


def _shapes(group: int) -> Shapes:
    """The shapes of the registers for groups of so many inputs."""
    results, activations, weights = (TILE_ROWS, TILE_ROW_BYTES), (TILE_ROWS, group), (group // 4, TILE_ROW_BYTES)
    return (*(4 * [results]), *(2 * [activations]), *(2 * [weights]))


# --- Multiply ---------------------------------------------------------------------------------------------------------


def _make_multiply_group(unit: TileUnit, group: int, numbers: tuple[int, ...]) -> Any:
    first, second, rows, left, right = numbers
    zero, load, dot, store = unit.zero, unit.load, unit.dot, unit.store

    @kernel
    def multiply_group(sums, x, w, next_panel, g):
        """sums[g] = the group g of a row tile @ two panels; next_panel: bytes from one to the other."""
        start = g * group * LANES
        load(rows, x, start, group)
        load(left, w, start, TILE_ROW_BYTES)
        load(right, w, start + next_panel, TILE_ROW_BYTES)
        zero(first)
        dot(first, rows, left)
        zero(second)
        dot(second, rows, right)
        store(first, sums, g * PANELS * _SUM_BYTES, TILE_ROW_BYTES)
        store(second, sums, (g * PANELS + 1) * _SUM_BYTES, TILE_ROW_BYTES)

    return multiply_group


def _make_multiply_groups(unit: TileUnit, group: int) -> Any:
    even, odd = (_make_multiply_group(unit, group, numbers) for numbers in (_EVEN, _ODD))

    @kernel
    def multiply_groups(sums, x, w, next_panel, n):
        """sums int32 [n, 2 panels, 16 rows, 16] of n groups."""
        for g in range(0, n - 1, 2):
            even(sums, x, w, next_panel, g)
            odd(sums, x, w, next_panel, g + 1)
        if n % 2 == 1:
            even(sums, x, w, next_panel, n - 1)

    return multiply_groups


@kernel
def _int8_panels(space, w, n_in, first, n, is_first):
    """The int8 weights of two panels from group `first` on, and the bytes from one panel to the other."""
    return at(w, first * GROUP_INT8 * LANES), n_in * LANES


@kernel
def _int4_panels(space, w, n_in, first, n, is_first):
    """The same of int4 weights, unpacked to `space`: the first row tile does it."""
    if is_first:
        for panel in range(PANELS):
            packed = at(w, (panel * n_in + first * GROUP_INT4) * LANES // 2)
            unpacked = at(space, panel * _STEP * GROUP_INT4 * LANES)
            for k in range(0, n * GROUP_INT4, 8):
                both = row_tile(packed, k * LANES // 2, LANES, 1)
                store_bytes(unpacked, k * LANES, low_nibbles(both))
                store_bytes(unpacked, (k + 4) * LANES, high_nibbles(both))
    return space, _STEP * GROUP_INT4 * LANES


# --- Scale ------------------------------------------------------------------------------------------------------------


@kernel
def _add_int8_group(result, sums, x, place, w, start, next_panel):
    """As `_int8_tile` of matmul.py scales a group."""
    dots = splat_tile(cast(x[1], types.int32), place, 1, _HALF, PANELS)
    dots = add_dots(dots, load_dots(sums, 0, LANES, _SUMS, _HALF, PANELS))
    scales = row_tile(cast(w[1], types.uint16), start, next_panel, PANELS)
    return scale_tile(result, dots, cast(x[2], types.float32), place, 1, scales)


@kernel
def _add_int4_group(result, sums, x, place, w, start, next_panel):
    """As `_int4_tile` of matmul.py scales a group."""
    dots = load_dots(sums, 0, LANES, _SUMS, _HALF, PANELS)
    scales = row_tile(cast(w[1], types.uint16), start, next_panel, PANELS)
    offsets = row_tile(cast(w[2], types.uint16), start, next_panel, PANELS)
    result = fma_tile(result, cast(x[1], types.float32), place, 1, offsets)
    return scale_tile(result, dots, cast(x[2], types.float32), place, 1, scales)


def _make_scale_groups(add_group: Any) -> Any:
    @kernel
    def scale_groups(out, out_stride, sums, x, w, panel, groups, first, n):
        """out [16, 32] += the sums of n of the groups, from `first` on, scaled; x, w: of the row tile, all panels."""
        for row in range(0, TILE_ROWS, _HALF):
            result = zero_tile(_HALF, PANELS)
            if first > 0:
                result = load_tile(out, row * out_stride, out_stride, LANES, _HALF, PANELS)
            for g in range(n):
                part = at(sums, g * PANELS * _SUMS + row * LANES)
                place, start = (first + g) * TILE_ROWS + row, (panel * groups + first + g) * LANES
                result = add_group(result, part, x, place, w, start, groups * LANES)
            store_tile(out, row * out_stride, out_stride, LANES, result, PANELS)

    return scale_groups


# --- Both -------------------------------------------------------------------------------------------------------------


def _make_multiply_whole(unit: TileUnit, group: int, stored_bits: int, panels: Any, add_group: Any) -> Any:
    multiply_groups, scale_groups = _make_multiply_groups(unit, group), _make_scale_groups(add_group)
    unpacked_bytes = PANELS * _STEP * group * LANES if stored_bits == 4 else TILE_ROW_BYTES

    @kernel
    def multiply_whole(out, out_stride, x, n_tiles, w, n_in, panel):
        """out [16 n_tiles, 32] = whole row tiles, one behind the other, @ the panels `panel` and `panel + 1`."""
        space, both_sums = stack_bytes(unpacked_bytes), stack_bytes(_TWO_STEPS_BYTES)
        groups, values = n_in // group, at(w[0], panel * n_in * LANES * stored_bits // 8)
        n_steps = ceil_div(groups, _STEP) * n_tiles
        for step in range(n_steps + 1):
            if step < n_steps:
                tile, first = step % n_tiles, step // n_tiles * _STEP
                n, sums = min(_STEP, groups - first), at(both_sums, step % 2 * _STEP_BYTES)
                weights, next_panel = panels(space, values, n_in, first, n, tile == 0)
                rows = at(x[0], (tile * groups + first) * group * TILE_ROWS)
                multiply_groups(sums, rows, weights, next_panel, n)
            if step > 0:
                tile, first = (step - 1) % n_tiles, (step - 1) // n_tiles * _STEP
                n, sums = min(_STEP, groups - first), at(both_sums, (step - 1) % 2 * _STEP_BYTES)
                corner, skipped = at(out, tile * TILE_ROWS * out_stride), 4 * tile * TILE_ROWS * groups
                of_tile = x[0], at(x[1], skipped), at(x[2], skipped)
                scale_groups(corner, out_stride, cast(sums, types.int32), of_tile, w, panel, groups, first, n)
        return n_tiles

    return multiply_whole


@kernel
def _pack_int16_row(x, row, height, source, n_in):
    """As `pack_int16_row` of row_tiles.py, but each plane of a group is a row of a register."""
    pack_int16(x, row, height, source, n_in, GROUP_INT8)


def _make_pack_row(vector: Matmul, pack_row: Any) -> Any:
    """Pack a row of a whole row tile for the registers: each group is a row tile of its own, as high as the planes."""
    pack_row_of_vectors, group = vector.pack_row, vector.group

    @kernel
    def pack(x, row, height, source, n_in):
        if height < TILE_ROWS:
            pack_row_of_vectors(x, row, height, source, n_in)
        else:
            for g in range(n_in // group):
                place = g * TILE_ROWS + row
                of_group = at(x[0], place * group), at(x[1], 4 * place), at(x[2], 4 * place)
                pack_row(of_group, types.int64(0), types.int64(1), at(source, g * group), types.int64(group))

    return pack


def _with_amx(vector: Matmul, unit: TileUnit, stored_bits: int, panels: Any, add_group: Any, pack_row: Any) -> Matmul:
    configure, release = unit.configure(_shapes(vector.group)), unit.release

    @kernel
    def begin(n_rows):
        if n_rows >= TILE_ROWS:
            configure()

    @kernel
    def end(n_rows):
        if n_rows >= TILE_ROWS:
            release()

    multiply_whole = _make_multiply_whole(unit, vector.group, stored_bits, panels, add_group)
    pack = _make_pack_row(vector, pack_row)
    return replace(vector, pack_row=pack, multiply_whole=multiply_whole, begin=begin, end=end)


def make_matmuls(unit: TileUnit) -> tuple[dict[str, Matmul], dict[str, Matmul]]:
    """The matmuls of the blocks and of the LM head, by the type of the weights, with those that use the unit."""
    int8, int4, head = matmul.MATMULS["int8"], matmul.MATMULS["int4"], matmul.HEAD_MATMULS["int8"]
    of_int8 = unit, 8, _int8_panels, _add_int8_group
    blocks = {
        "int8": _with_amx(int8, *of_int8, int8.pack_row),
        "int4": _with_amx(int4, unit, 4, _int4_panels, _add_int4_group, int4.pack_row),
    }
    heads = {"int8": _with_amx(head, *of_int8, _pack_int16_row)}
    return {**matmul.MATMULS, **blocks}, {**matmul.HEAD_MATMULS, **heads}


MATMULS, HEAD_MATMULS = make_matmuls(AMX) if TARGET.amx else (matmul.MATMULS, matmul.HEAD_MATMULS)
"""The matmuls for the current target."""
