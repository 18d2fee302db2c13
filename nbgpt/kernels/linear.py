"""Linear layers as phases: what computes their input rows, the matmul, and what completes their output.

Which thread computes a work item never changes its bits.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ..abi.layout import LANES, PANELS
from ..simd import at, kernel
from .fields import (
    activation,
    epsilon,
    inner,
    logit_rows,
    logits,
    n_embd,
    n_inner,
    n_threads,
    n_vocab,
    packed,
    packed_scales,
    packed_sums,
    projected,
    x,
)
from .gelu import activate
from .layernorm import layer_norm
from .matmul import Matmul
from .phases import claim_near, make_phase
from .residual import add, add_residual
from .rows import are_few, buffer_row, ceil_div, padded, stride_of
from .tensors import matrix, vector

_COLUMNS = LANES * PANELS
_CACHED = 400_000  # bytes of packed activations that stay in a core's cache while weights stream by


def make_linear(matmul: Matmul, count: Any, source: Any, name: str, sizes: tuple[Any, Any], out: Any, then: Any) -> Any:
    """Two phases for out [n_rows, n_out] = source [n_rows, n_in] @ the matrix `name`: pack the rows, then multiply.

    count(job): n_rows.
    source(job, layer, row, owner): computes an input row and returns its address; owner as for `buffer_row`.
    sizes: n_in(job), n_out(job).
    then(job, layer, row, first, last): completes the columns first..last of an output row.
    """
    n_in, n_out = sizes
    return [
        _make_pack_phase(matmul, count, source, n_in),
        _make_multiply_phase(matmul, count, source, matrix(name), n_in, n_out, out, then),
    ]


# --- Pack the rows ----------------------------------------------------------------------------------------------------


def _make_packed_tile(matmul: Matmul) -> Any:
    whole, group, value_bytes = matmul.height, matmul.group, matmul.value_bytes

    @kernel
    def packed_tile(job, tile, n_in):
        """The row tile (values, sums, scales) with the number `tile`."""
        row = tile * whole
        values = at(packed(job), row * n_in * value_bytes)
        sums = at(packed_sums(job), row * (n_in // group) * 4)
        scales = at(packed_scales(job), row * (n_in // group) * 4)
        return values, sums, scales

    return packed_tile


def _make_pack_row(matmul: Matmul, count: Any, source: Any, n_inputs: Any) -> Any:
    """A kernel (job, layer, row, owner): compute an input row and pack it into its row tile.

    An input row takes `planes` rows of one tile: their number divides the height of a whole tile.
    """
    packed_tile, pack_row = _make_packed_tile(matmul), matmul.pack_row
    whole, group, planes = matmul.height, matmul.group, matmul.planes

    @kernel
    def pack(job, layer, row, owner):
        n_in, tile = padded(n_inputs(job), group), row * planes // whole
        height = min(whole, count(job) * planes - tile * whole)
        values = source(job, layer, row, owner)
        pack_row(packed_tile(job, tile + owner, n_in), row * planes % whole, height, values, n_in)

    return pack


def _make_pack_phase(matmul: Matmul, count: Any, source: Any, n_inputs: Any) -> Any:
    """Pack all rows. An item is a whole tile, as its rows share cache lines. Few rows are packed in the next phase."""
    pack, rows_a_tile = _make_pack_row(matmul, count, source, n_inputs), matmul.height // matmul.planes

    @kernel
    def n_items(job):
        return 0 if are_few(job, count(job)) else ceil_div(count(job), rows_a_tile)

    @kernel
    def pack_tile(job, layer, tile, thread):
        for row in range(tile * rows_a_tile, min(count(job), (tile + 1) * rows_a_tile)):
            pack(job, layer, row, 0)

    return make_phase(n_items, pack_tile)


# --- Multiply ---------------------------------------------------------------------------------------------------------


def _make_item_sizes(matmul: Matmul, count: Any, n_inputs: Any, n_outputs: Any) -> Any:
    whole, group, value_bytes, planes = matmul.height, matmul.group, matmul.value_bytes, matmul.planes

    @kernel
    def item_sizes(job):
        """Row tiles, row tiles of an item, pairs of panels, pairs of panels of an item, items that span all pairs.

        An item is 1 to 4 pairs of panels x the row tiles that fit in _CACHED bytes.
        """
        tiles = ceil_div(count(job) * planes, whole)
        tiles_an_item = max(1, _CACHED // (whole * padded(n_inputs(job), group) * value_bytes))
        pairs = ceil_div(n_outputs(job), _COLUMNS)
        pairs_an_item = max(1, min(4, pairs // (8 * n_threads(job))))
        return tiles, tiles_an_item, pairs, pairs_an_item, ceil_div(pairs, pairs_an_item)

    return item_sizes


def _make_multiply_phase(
    matmul: Matmul, count: Any, source: Any, weights: Any, n_inputs: Any, n_outputs: Any, out: Any, then: Any
) -> Any:
    """Multiply the packed rows by the matrix; each thread packs few rows for itself, before its first item."""
    pack, packed_tile = _make_pack_row(matmul, count, source, n_inputs), _make_packed_tile(matmul)
    item_sizes = _make_item_sizes(matmul, count, n_inputs, n_outputs)
    multiply, whole, group, planes = matmul.multiply, matmul.height, matmul.group, matmul.planes
    multiply_whole, begin, end = matmul.multiply_whole, matmul.begin, matmul.end

    @kernel
    def n_items(job):
        tiles, tiles_an_item, _, _, items_across = item_sizes(job)
        return ceil_div(tiles, tiles_an_item) * items_across

    @kernel
    def prepare(job, layer, thread):  # this thread has an item, so no thread has begun a later phase: x is unchanged
        if are_few(job, count(job)):
            for row in range(count(job)):
                pack(job, layer, row, thread)
        begin(count(job) * planes)

    @kernel
    def finish(job, layer, thread):
        end(count(job) * planes)

    @kernel
    def multiply_item(job, layer, item, thread, tiles, tiles_an_item, pairs, pairs_an_item, items_across):
        owner = thread if are_few(job, count(job)) else 0
        first_tile, first_pair = item // items_across * tiles_an_item, item % items_across * pairs_an_item
        last_tile, last_pair = min(tiles, first_tile + tiles_an_item), min(pairs, first_pair + pairs_an_item)
        rows, n_in, stride = count(job) * planes, padded(n_inputs(job), group), stride_of(n_outputs(job))
        n_whole = min(last_tile, rows // whole) - first_tile
        for pair in range(first_pair, last_pair):
            corner = at(out(job), first_tile * whole * stride + pair * _COLUMNS)
            rows_of_tile = packed_tile(job, first_tile + owner, n_in)
            done = multiply_whole(corner, stride, rows_of_tile, n_whole, weights(job, layer), n_in, pair * PANELS)
            for tile in range(first_tile + done, last_tile):
                height = min(whole, rows - tile * whole)
                corner = at(out(job), tile * whole * stride + pair * _COLUMNS)
                rows_of_tile = packed_tile(job, tile + owner, n_in)
                multiply(corner, stride, rows_of_tile, height, weights(job, layer), n_in, pair * PANELS)
        for row in range(first_tile * whole, min(rows, last_tile * whole)):
            then(job, layer, row, first_pair * _COLUMNS, last_pair * _COLUMNS)

    return make_phase(n_items, multiply_item, claim_near, prepare, finish, item_sizes)


# --- Sources of input rows --------------------------------------------------------------------------------------------


@kernel
def same_row(job, row):
    """The row itself: every row of a block."""
    return row


@kernel
def logit_row(job, row):
    """The row of the pass that has the given row of logits."""
    return types.int64(logit_rows(job)[row])


def make_norm(name: str, out: Any, source_row: Any = same_row) -> Any:
    """A source: the LayerNorm `name` of row source_row(job, row) of the residual stream, written to `out`."""
    gain, bias = vector(name + ".weight"), vector(name + ".bias")

    @kernel
    def norm(job, layer, row, owner):
        stride = stride_of(n_embd(job))
        normed, residual = at(out(job), buffer_row(row, owner) * stride), at(x(job), source_row(job, row) * stride)
        layer_norm(normed, residual, gain(job, layer), bias(job, layer), n_embd(job), epsilon(job))
        return normed

    return norm


@kernel
def inner_row(job, layer, row, owner):
    """A source: the activations of mlp.c_fc."""
    return at(inner(job), row * stride_of(n_inner(job)))


# --- What completes the columns first..last of an output row ----------------------------------------------------------

_c_fc_bias = vector("mlp.c_fc.bias")


def make_residual_add(bias_name: str) -> Any:
    """x += projected + bias."""
    bias = vector(bias_name)

    @kernel
    def residual_add(job, layer, row, first, last):
        start = row * stride_of(n_embd(job)) + first
        add_residual(at(x(job), start), at(projected(job), start), at(bias(job, layer), first), last - first)

    return residual_add


@kernel
def activate_inner(job, layer, row, first, last):
    """inner = activation(inner + bias)."""
    start = row * stride_of(n_inner(job)) + first
    activate(at(inner(job), start), at(_c_fc_bias(job, layer), first), last - first, activation(job))


def make_add_planes(planes: int) -> Any:
    """Add the product of the low bytes of a row of logits to that of the high bytes; nothing if there is one plane."""

    @kernel
    def add_planes(job, layer, row, first, last):
        if planes == 2 and row % 2 == 0:
            stride = stride_of(n_vocab(job))
            high = at(logits(job), row * stride + first)
            add(high, at(high, stride), last - first)

    return add_planes
