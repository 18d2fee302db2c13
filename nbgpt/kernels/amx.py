"""int8, int4 and bfloat16 products by AMX, for whole row tiles, with the bits of the vector kernels.

A tile register holds the 16 rows of a row tile and a group of their inputs, or a panel's weights for these inputs, or
the products of both, 16 x 16 sums. Rows that fill no row tile are the vector kernels'.

Sums of whole numbers are exact, as the vector kernels' are, and are scaled by the same operations in the same order. A
step is a row tile, two panels and STEP groups of inputs: their sums go to memory, and are scaled and added to the
output while the next step is multiplied. All row tiles take their turn with the same groups of weights, so that these
stay in the cache. Sums of bfloat16 stay in their registers from the first block of 32 inputs to the last.

int8 weights are tiles as they lie in the file, [16, 16, 4] bytes for a group and panel; so are bfloat16 weights, [16,
16, 2] for a block and panel. int4 weights are unpacked to tiles of 8 rows, once for all row tiles. The values of a
whole row tile are laid out for the registers, [n_groups, 16 rows, group].

Off by default (NBGPT_AMX=1), because no CPU with AMX was at hand: the speed was not measured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numba import types

from ..abi.layout import BLOCK_BFLOAT16, GROUP_INT4, GROUP_INT8, LANES, PANELS
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
    store_bfloats,
    store_bytes,
    store_tile,
    zero_tile,
)
from ..simd.amx import AMX, TILE_ROW_BYTES, TILE_ROWS, Shapes, TileUnit
from ..simd.codegen import TARGET
from . import matmul
from .matmul import Matmul
from .row_tiles import bfloats, pack_int16
from .rows import ceil_div


def _shapes(row_bytes: int) -> Shapes:
    """Registers 0 to 3 are for sums, 4 and 5 for activations, 6 and 7 for weights.

    row_bytes: of a row's inputs in a group.
    """
    sums, x, w = (TILE_ROWS, TILE_ROW_BYTES), (TILE_ROWS, row_bytes), (row_bytes // 4, TILE_ROW_BYTES)
    return (*(4 * [sums]), *(2 * [x]), *(2 * [w]))


# --- int8, int4: multiply ---------------------------------------------------------------------------------------------

_STEP = 4  # groups
_HALF = TILE_ROWS // 2  # rows whose results, of two panels, stay in registers while the groups of a step are scaled
_SUMS = TILE_ROWS * LANES  # of a group and panel
_SUM_BYTES = 4 * _SUMS
_STEP_BYTES = _STEP * PANELS * _SUM_BYTES
_TWO_STEPS_BYTES = 2 * _STEP_BYTES

# Registers for one group and for the next, so that no product waits until the one before it is stored: sums of two
# panels, activations, weights of two panels.
_EVEN, _ODD = (0, 1, 4, 6, 7), (2, 3, 5, 6, 7)


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


# --- int8, int4: scale ------------------------------------------------------------------------------------------------


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


# --- int8, int4: both -------------------------------------------------------------------------------------------------


def _make_multiply_integers(unit: TileUnit, group: int, stored_bits: int, panels: Any, add_group: Any) -> Any:
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


# --- bfloat16 ---------------------------------------------------------------------------------------------------------

_BLOCK_BYTES = TILE_ROWS * TILE_ROW_BYTES  # of a row tile, and of a panel
_PANEL_BYTES = 2 * LANES  # an input


def _make_multiply_tiles(unit: TileUnit, row_tile_bytes: int) -> Any:
    """A product waits for the one before it in the same register: so two row tiles by two panels take turns."""
    zero, load, dot, store = unit.zero, unit.load, unit.dot_bfloats, unit.store

    @kernel
    def multiply_tiles(out, out_stride, x, are_two, w, n_in):
        """out [16 or 32, 32] = one row tile or two @ two panels; out and its stride in bytes.

        x: bfloat16 [n_in / 32, 16, 32] for each row tile; w: [n_in / 2, 16, 2] for each panel.
        """
        zero(0)
        zero(1)
        zero(2)
        zero(3)
        for start in range(0, n_in * _PANEL_BYTES, _BLOCK_BYTES):
            load(4, x, start, TILE_ROW_BYTES)
            load(6, w, start, TILE_ROW_BYTES)
            load(7, w, start + n_in * _PANEL_BYTES, TILE_ROW_BYTES)
            dot(0, 4, 6)
            dot(1, 4, 7)
            if are_two:
                load(5, x, start + n_in * row_tile_bytes, TILE_ROW_BYTES)
                dot(2, 5, 6)
                dot(3, 5, 7)
        store(0, out, 0, out_stride)
        store(1, out, TILE_ROW_BYTES, out_stride)
        if are_two:
            store(2, out, TILE_ROWS * out_stride, out_stride)
            store(3, out, TILE_ROWS * out_stride + TILE_ROW_BYTES, out_stride)

    return multiply_tiles


def _make_multiply_bfloats(unit: TileUnit, value_bytes: int) -> Any:
    """value_bytes: of an input in an incomplete row tile, for which whole ones leave as much room."""
    row_tile_bytes = value_bytes * TILE_ROWS  # an input
    multiply_tiles = _make_multiply_tiles(unit, row_tile_bytes)

    @kernel
    def multiply_whole(out, out_stride, x, n_tiles, w, n_in, panel):
        """out [16 n_tiles, 32] = whole row tiles, one behind the other, @ the panels `panel` and `panel + 1`."""
        weights = at(w[0], panel * n_in * _PANEL_BYTES)
        for tile in range(0, n_tiles, 2):
            corner, rows = at(out, tile * TILE_ROWS * out_stride), at(x[0], tile * n_in * row_tile_bytes)
            multiply_tiles(cast(corner, types.uint8), 4 * out_stride, rows, tile + 1 < n_tiles, weights, n_in)
        return n_tiles

    return multiply_whole


# --- Pack -------------------------------------------------------------------------------------------------------------


@kernel
def _pack_int16_row(x, row, height, source, n_in):
    """As `pack_int16_row` of row_tiles.py, but each plane of a group is a row of a register."""
    pack_int16(x, row, height, source, n_in, GROUP_INT8)


@kernel
def _pack_bfloat16_row(x, row, height, source, n_in):
    """As `pack_bfloat16_row` of row_tiles.py, but in 16 bits, a row of a register."""
    for k in range(0, n_in, LANES):
        store_bfloats(cast(x[0], types.uint16), k, bfloats(source, k))


def _make_pack_row(vector: Matmul, row_bytes: int, pack_row: Any) -> Any:
    """Pack a row of a whole row tile for the registers: each group is a row tile of its own, as high as the planes."""
    pack_row_of_vectors, group = vector.pack_row, vector.group

    @kernel
    def pack(x, row, height, source, n_in):
        if height < TILE_ROWS:
            pack_row_of_vectors(x, row, height, source, n_in)
        else:
            for g in range(n_in // group):
                place = g * TILE_ROWS + row
                of_group = at(x[0], place * row_bytes), at(x[1], 4 * place), at(x[2], 4 * place)
                pack_row(of_group, types.int64(0), types.int64(1), at(source, g * group), types.int64(group))

    return pack


# --- The matmuls ------------------------------------------------------------------------------------------------------


def _with_amx(vector: Matmul, unit: TileUnit, row_bytes: int, multiply_whole: Any, pack_row: Any) -> Matmul:
    """A matmul whose whole row tiles have 16 rows and are multiplied by `multiply_whole`."""
    configure, release = unit.configure(_shapes(row_bytes)), unit.release

    @kernel
    def begin(n_rows):
        if n_rows >= TILE_ROWS:
            configure()

    @kernel
    def end(n_rows):
        if n_rows >= TILE_ROWS:
            release()

    pack = _make_pack_row(vector, row_bytes, pack_row)
    return replace(vector, pack_row=pack, height=TILE_ROWS, multiply_whole=multiply_whole, begin=begin, end=end)


def make_matmuls(unit: TileUnit) -> tuple[dict[str, Matmul], dict[str, Matmul]]:
    """The matmuls of the blocks and of the LM head, by the type of the weights, with those that use the unit."""
    int8, int4, head = matmul.MATMULS["int8"], matmul.MATMULS["int4"], matmul.HEAD_MATMULS["int8"]
    by_int8 = _make_multiply_integers(unit, GROUP_INT8, 8, _int8_panels, _add_int8_group)
    by_int4 = _make_multiply_integers(unit, GROUP_INT4, 4, _int4_panels, _add_int4_group)
    bfloat16 = matmul.MATMULS["bfloat16"]
    by_bfloat16 = _make_multiply_bfloats(unit, bfloat16.value_bytes)
    bfloat16 = _with_amx(bfloat16, unit, 2 * BLOCK_BFLOAT16, by_bfloat16, _pack_bfloat16_row)
    blocks = {
        "bfloat16": bfloat16,
        "int8": _with_amx(int8, unit, GROUP_INT8, by_int8, int8.pack_row),
        "int4": _with_amx(int4, unit, GROUP_INT4, by_int4, int4.pack_row),
    }
    heads = {"bfloat16": bfloat16, "int8": _with_amx(head, unit, GROUP_INT8, by_int8, _pack_int16_row)}
    return {**matmul.MATMULS, **blocks}, {**matmul.HEAD_MATMULS, **heads}


MATMULS, HEAD_MATMULS = make_matmuls(AMX) if TARGET.amx else (matmul.MATMULS, matmul.HEAD_MATMULS)
"""The matmuls for the current target."""
