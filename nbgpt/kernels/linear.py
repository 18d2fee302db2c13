"""Linear layers spread over a team of threads: what they read, the product, and what completes it.

Every phase is a step of the team: items that threads claim one by one (phases.py). Who computes an item never changes
its bits.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ..abi.layout import LANES, PANELS, ROW_TILE
from ..simd import at, kernel
from .fields import (
    activation,
    are_few,
    cells,
    inner,
    logits,
    n_embd,
    n_inner,
    n_threads,
    n_vocab,
    place_of,
    projected,
    stride_of,
    x,
)
from .gelu import activate
from .layernorm import layer_norm
from .matmul import Matmul
from .phases import claim, claim_near, item_done, wait_for_step
from .residual import add, add_residual
from .tensors import float_field, floats, layer_tensor, pointer_field, round_up

_COLUMNS = LANES * PANELS
_CACHED = 400_000  # bytes of packed activations that a thread keeps at hand while weights stream by
_epsilon = float_field("epsilon")
_packed, _packed_sums, _packed_scales = (
    pointer_field(name, types.uint8) for name in ("packed", "packed_sums", "packed_scales")
)


def _packed_tile(matmul: Matmul) -> Any:
    """A kernel (job, tile, n_in) -> the row tile (values, sums, scales) that a matmul reads."""
    group, value_bytes = matmul.group, matmul.value_bytes

    @kernel
    def packed_tile(job, tile, n_in):
        row = tile * ROW_TILE
        values = at(_packed(job), row * n_in * value_bytes)
        sums = at(_packed_sums(job), row * (n_in // group) * 4)
        scales = at(_packed_scales(job), row * (n_in // group) * 4)
        return values, sums, scales

    return packed_tile


# --- What they read ---------------------------------------------------------------------------------------------------


def make_norm(gain: Any, bias: Any, out: Any, source_row: Any) -> Any:
    """Rows of the residual stream through a LayerNorm, as the input of a linear layer."""

    @kernel
    def norm(job, layer, row, copy):
        """The LayerNorm of a row, in its place of a copy of `out`."""
        stride = stride_of(n_embd(job))
        normed, residual = at(out(job), place_of(row, copy) * stride), at(x(job), source_row(job, row) * stride)
        layer_norm(normed, residual, gain(job, layer), bias(job, layer), n_embd(job), _epsilon(job))
        return normed

    return norm


@kernel
def inner_row(job, layer, row, copy):
    """What the feed-forward layer has made of a row so far, as the input of its second half."""
    return at(inner(job), row * stride_of(n_inner(job)))


def _make_pack(matmul: Matmul, source: Any, count: Any, n_inputs: Any) -> Any:
    """A kernel (job, layer, row, copy): a row of the source takes its place in the row tiles of a copy.

    A row takes as many rows of a tile as the matmul has planes, all in one tile: their number divides ROW_TILE.
    """
    packed_tile, pack_row, group, planes = _packed_tile(matmul), matmul.pack_row, matmul.group, matmul.planes

    @kernel
    def pack(job, layer, row, copy):
        rows, n_in = count(job), round_up(n_inputs(job), group)
        tile, place = row * planes // ROW_TILE, row * planes % ROW_TILE
        height = min(ROW_TILE, rows * planes - tile * ROW_TILE)
        pack_row(packed_tile(job, tile + copy, n_in), place, height, source(job, layer, row, copy), n_in)

    return pack


def _make_pack_all(pack: Any, count: Any, planes: int) -> Any:
    """A kernel (job, layer, step): every row takes its place. An item is all rows of a tile.

    Threads that share the cache lines of a tile would take them from each other.
    """
    rows_a_tile = ROW_TILE // planes

    @kernel
    def pack_all(job, layer, step):
        tiles = round_up(count(job), rows_a_tile) // rows_a_tile
        tile = claim(cells(job), step)
        while tile < tiles:
            for row in range(tile * rows_a_tile, min(count(job), (tile + 1) * rows_a_tile)):
                pack(job, layer, row, 0)
            item_done(cells(job), step)
            tile = claim(cells(job), step)
        wait_for_step(cells(job), step, tiles)

    return pack_all


# --- The product ------------------------------------------------------------------------------------------------------


def make_linear(matmul: Matmul, source: Any, weights: Any, out: Any, count: Any, sizes: Any, finish: Any) -> Any:
    """out = rows of the source @ weights; finish(job, layer, row, first, last) completes the columns first..last.

    Two steps: the rows are packed (by every thread for itself, inside the second step, if they are few), and then
    multiplied. An item of that is a few pairs of panels by as many row tiles as stay in the cache while they stream by.
    Each thread goes on with the neighbours of what it had, which it has asked the cache for.
    """
    n_inputs, n_outputs = sizes
    pack, packed_tile, multiply = _make_pack(matmul, source, count, n_inputs), _packed_tile(matmul), matmul.multiply
    group, value_bytes, planes = matmul.group, matmul.value_bytes, matmul.planes
    pack_all = _make_pack_all(pack, count, planes)

    @kernel
    def multiply_part(job, layer, copy, first_tile, last_tile, first_pair, last_pair):
        rows, n_in, stride = count(job) * planes, round_up(n_inputs(job), group), stride_of(n_outputs(job))
        for pair in range(first_pair, last_pair):
            for tile in range(first_tile, last_tile):
                height = min(ROW_TILE, rows - tile * ROW_TILE)
                corner = at(out(job), tile * ROW_TILE * stride + pair * _COLUMNS)
                x = packed_tile(job, tile + copy, n_in)
                multiply(corner, stride, x, height, weights(job, layer), n_in, pair * PANELS)
        for row in range(first_tile * ROW_TILE, min(rows, last_tile * ROW_TILE)):
            finish(job, layer, row, first_pair * _COLUMNS, last_pair * _COLUMNS)

    @kernel
    def linear(job, layer, step, me):
        few = are_few(job, count(job))
        if not few:
            pack_all(job, layer, step)
        pairs = round_up(n_outputs(job), _COLUMNS) // _COLUMNS
        pairs_an_item = max(1, min(4, pairs // (8 * n_threads(job))))
        items_across = round_up(pairs, pairs_an_item) // pairs_an_item
        tiles = round_up(count(job) * planes, ROW_TILE) // ROW_TILE
        tiles_an_item = max(1, _CACHED // (ROW_TILE * round_up(n_inputs(job), group) * value_bytes))
        n_items = round_up(tiles, tiles_an_item) // tiles_an_item * items_across
        item = claim_near(cells(job), step + 1, n_items, me, n_threads(job))
        if few and item < n_items:  # whoever has an item may read the source: no later step has begun
            for row in range(count(job)):
                pack(job, layer, row, me)
        while item < n_items:
            first_tile = item // items_across * tiles_an_item
            first_pair = item % items_across * pairs_an_item
            last_tile, last_pair = min(tiles, first_tile + tiles_an_item), min(pairs, first_pair + pairs_an_item)
            multiply_part(job, layer, me if few else 0, first_tile, last_tile, first_pair, last_pair)
            item_done(cells(job), step + 1)
            item = claim_near(cells(job), step + 1, n_items, me, n_threads(job))
        wait_for_step(cells(job), step + 1, n_items)

    return linear


# --- What completes the columns first..last of a row ------------------------------------------------------------------

_c_fc_bias = floats(layer_tensor("mlp.c_fc.bias"))


def make_finish_logits(planes: int) -> Any:
    """The planes of a row of logits, added up in the first of them."""

    @kernel
    def finish(job, layer, row, first, last):
        if planes == 2 and row % 2 == 0:
            stride = stride_of(n_vocab(job))
            high = at(logits(job), row * stride + first)
            add(high, at(high, stride), last - first)

    return finish


def make_finish_residual(bias: Any) -> Any:
    """The projection joins the residual stream."""

    @kernel
    def finish(job, layer, row, first, last):
        start = row * stride_of(n_embd(job)) + first
        add_residual(at(x(job), start), at(projected(job), start), at(bias(job, layer), first), last - first)

    return finish


@kernel
def finish_inner(job, layer, row, first, last):
    """The feed-forward layer's activation."""
    start = row * stride_of(n_inner(job)) + first
    activate(at(inner(job), start), at(_c_fc_bias(job, layer), first), last - first, activation(job))
