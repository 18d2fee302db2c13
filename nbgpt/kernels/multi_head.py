"""Attention spread over a team of threads: keys and values into the cache, then heads, rows and spans as items."""

from __future__ import annotations

from typing import Any

from numba import types

from ..abi.layout import LANES, PAGE, QUERY_TILE
from ..simd import at, kernel, load, store
from .attention import (
    SPAN,
    append_key,
    append_value,
    conclude,
    make_attend,
    make_see_span,
    merge,
    scale_queries,
    state_floats,
)
from .fields import (
    are_few,
    attended,
    cells,
    n_embd,
    n_head,
    n_layer,
    n_rows,
    page_tables,
    place_of,
    positions,
    qkv,
    stride_of,
    tables,
)
from .phases import claim, item_done, wait_for_step
from .residual import add
from .tensors import floats, layer_tensor, number_field, pointer_field, round_up

_attend_tile, _attend_one, _see_span = make_attend(QUERY_TILE), make_attend(1), make_see_span(1)
_c_attn_bias = floats(layer_tensor("attn.c_attn.bias"))
_scales = pointer_field("attention_scales", types.float32)
_scratch, _scratch_stride = pointer_field("scratch", types.float32), number_field("scratch_stride")
_states, _max_spans = pointer_field("states", types.float32), number_field("max_spans")
_holds_halves = number_field("kv_halves")


@kernel
def _head_dim(job):
    return n_embd(job) // n_head(job)


def _for_each_cache(make: Any) -> Any:
    """make(pages) for a cache of float32 and for one of float16; a pass chooses."""
    single, half = (make(pointer_field("pages", dtype)) for dtype in (types.float32, types.uint16))

    @kernel
    def either(job, *rest):
        if _holds_halves(job) != 0:
            half(job, *rest)
        else:
            single(job, *rest)

    return either


def _make_head_in_cache(pages: Any) -> Any:
    @kernel
    def head_in_cache(job, layer, row, head):
        """(pages, table, page_stride, keys, values, head_dim, value_dim) of a row's sequence: see attention.py."""
        head_dim = _head_dim(job)
        value_dim = round_up(head_dim, LANES)
        layer_stride = n_head(job) * PAGE * (head_dim + value_dim)
        keys = layer * layer_stride + head * PAGE * head_dim
        values = layer * layer_stride + n_head(job) * PAGE * head_dim + head * PAGE * value_dim
        table = at(page_tables(job), types.int64(tables(job)[row]))
        return pages(job), table, n_layer(job) * layer_stride, keys, values, head_dim, value_dim

    return head_in_cache


# --- Keys and values --------------------------------------------------------------------------------------------------


def _make_append(pages: Any) -> Any:
    head_in_cache = _make_head_in_cache(pages)

    @kernel
    def append(job, layer, row, first, last):
        """Put the keys and values among the columns first..last of a row into the cache, head by head."""
        head_dim, position = _head_dim(job), types.int64(positions(job)[row])
        column = max(first, n_embd(job))
        while column < min(last, 3 * n_embd(job)):
            head, d = (column % n_embd(job)) // head_dim, column % head_dim
            count = min(head_dim - d, last - column)
            memory, table, page_stride, keys, values, _, value_dim = head_in_cache(job, layer, row, head)
            page = at(memory, types.int64(table[position // PAGE]) * page_stride)
            new = at(qkv(job), row * stride_of(3 * n_embd(job)) + column)
            if column < 2 * n_embd(job):
                append_key(at(page, keys + d * PAGE), new, position, count)
            else:
                append_value(at(page, values + d), new, position, count, value_dim)
            column += count

    return append


_append = _for_each_cache(_make_append)


@kernel
def finish_qkv(job, layer, row, first, last):
    """Completes the columns first..last: queries stay where they are; keys and values go into the cache."""
    start = row * stride_of(3 * n_embd(job)) + first
    add(at(qkv(job), start), at(_c_attn_bias(job, layer), first), last - first)
    _append(job, layer, row, first, last)


# --- Many rows: an item is a head of a tile of rows -------------------------------------------------------------------


@kernel
def _queries(job, row, head):
    return at(qkv(job), row * stride_of(3 * n_embd(job)) + head * _head_dim(job))


@kernel
def consecutive(job, row, count):
    """Are these rows neighbours in one sequence?"""
    for r in range(row + 1, row + count):
        if tables(job)[r] != tables(job)[row] or positions(job)[r] != positions(job)[row] + r - row:
            return False
    return True


def _make_attend_rows(pages: Any) -> Any:
    head_in_cache = _make_head_in_cache(pages)

    @kernel
    def attend_rows(job, layer, me, first, last, head):
        """Attention of one head for the rows first..last, all at once if they are a whole tile of one sequence."""
        stride, out_stride = stride_of(3 * n_embd(job)), stride_of(n_embd(job))
        scratch, scale = at(_scratch(job), me * _scratch_stride(job)), _scales(job)[layer]
        row = first
        while row < last:
            out, queries = at(attended(job), row * out_stride + head * _head_dim(job)), _queries(job, row, head)
            place, position = head_in_cache(job, layer, row, head), types.int64(positions(job)[row])
            if last - row == QUERY_TILE and consecutive(job, row, QUERY_TILE):
                _attend_tile(out, out_stride, queries, stride, position, place, scale, scratch)
                row += QUERY_TILE
            else:
                _attend_one(out, out_stride, queries, stride, position, place, scale, scratch)
                row += 1

    return attend_rows


_attend_rows = _for_each_cache(_make_attend_rows)


@kernel
def attend_many(job, layer, step, me):
    """Every head of every row, the longest pasts first."""
    rows, heads = n_rows(job), n_head(job)
    tiles = round_up(rows, QUERY_TILE) // QUERY_TILE
    item = claim(cells(job), step)
    while item < tiles * heads:
        first = (tiles - 1 - item // heads) * QUERY_TILE
        _attend_rows(job, layer, me, first, min(rows, first + QUERY_TILE), item % heads)
        item_done(cells(job), step)
        item = claim(cells(job), step)
    wait_for_step(cells(job), step, tiles * heads)


# --- Few rows: an item is a span of a head of a row, so that a long past is shared ------------------------------------


@kernel
def _n_spans(job, row):
    return types.int64(positions(job)[row]) // SPAN + 1


@kernel
def _state(job, row, head, span):
    size = state_floats(round_up(_head_dim(job), LANES))
    return at(_states(job), ((row * n_head(job) + head) * _max_spans(job) + span) * size)


def _make_attend_span(pages: Any) -> Any:
    head_in_cache = _make_head_in_cache(pages)

    @kernel
    def attend_span(job, layer, me, row, head, span):
        """What a head of a row sees of a span, into its state."""
        q = at(_scratch(job), me * _scratch_stride(job))
        scale_queries(q, _queries(job, row, head), 0, _scales(job)[layer], 1, _head_dim(job))
        place, position = head_in_cache(job, layer, row, head), types.int64(positions(job)[row])
        _see_span(_state(job, row, head, span), q, position, span, place, at(q, _head_dim(job)))

    return attend_span


_attend_span = _for_each_cache(_make_attend_span)


@kernel
def attend_few(job, layer, step, me):
    """Every span of every head of every row; `attended_row` brings them together."""
    heads, spans = n_head(job), types.int64(0)
    for row in range(n_rows(job)):
        spans = max(spans, _n_spans(job, row))
    n_items = n_rows(job) * heads * spans
    item = claim(cells(job), step)
    while item < n_items:
        row, head, span = item // (heads * spans), item // spans % heads, item % spans
        if span < _n_spans(job, row):
            _attend_span(job, layer, me, row, head, span)
        item_done(cells(job), step)
        item = claim(cells(job), step)
    wait_for_step(cells(job), step, n_items)


@kernel
def _merge_spans(job, row, merged, out):
    """out [n_embd] = what the heads of a row have seen, span by span."""
    head_dim = _head_dim(job)
    value_dim = round_up(head_dim, LANES)
    for head in range(n_head(job)):
        seen = _state(job, row, head, 0)
        if _n_spans(job, row) > 1:
            for i in range(0, state_floats(value_dim), LANES):
                store(merged, i, load(seen, i))
            for span in range(1, _n_spans(job, row)):
                merge(merged, _state(job, row, head, span), value_dim)
            seen = merged
        conclude(at(out, head * head_dim), seen, head_dim, value_dim)


# --- Both -------------------------------------------------------------------------------------------------------------


@kernel
def attention(job, layer, step, me):
    """What every head of every row gathers from the past."""
    if are_few(job, n_rows(job)):
        attend_few(job, layer, step, me)
    else:
        attend_many(job, layer, step, me)


@kernel
def attended_row(job, layer, row, copy):
    """What attention has gathered for a row, as the input of a linear layer."""
    out = at(attended(job), place_of(row, copy) * stride_of(n_embd(job)))
    if are_few(job, n_rows(job)):
        _merge_spans(job, row, at(_scratch(job), copy * _scratch_stride(job)), out)
    return out
