"""Multi-head attention as one phase: every head of every row, over the KV cache.

With many rows, a work item is one head of a tile of rows. With few rows, it is one head of one row over one span of
past positions, so that several threads share a long past; `merged_heads` then merges the spans' states.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ..abi.layout import LANES, PAGE, QUERY_TILE
from ..simd import at, cast, kernel, load, store
from .attention import (
    SPAN,
    HeadCache,
    append_key,
    append_value,
    conclude,
    make_attend,
    make_attend_span,
    merge,
    scale_queries,
    state_floats,
)
from .fields import (
    attended,
    attention_scales,
    kv_is_float16,
    max_spans,
    n_embd,
    n_head,
    n_layer,
    n_rows,
    page_tables,
    pages,
    positions,
    qkv,
    scratch,
    scratch_stride,
    states,
    table_starts,
)
from .phases import make_phase
from .residual import add
from .rows import are_few, buffer_row, ceil_div, padded, stride_of
from .tensors import vector

_attend_tile, _attend_one, _attend_span = make_attend(QUERY_TILE), make_attend(1), make_attend_span(1)
_c_attn_bias = vector("attn.c_attn.bias")


@kernel
def n_qkv(job):
    """Number of outputs of attn.c_attn: n_embd each for queries, keys and values."""
    return 3 * n_embd(job)


@kernel
def _head_dim(job):
    return n_embd(job) // n_head(job)


def _for_each_kv_dtype(make: Any) -> Any:
    """A kernel that runs make(dtype) for the dtype of the job's KV cache; float16 numbers are passed as uint16."""
    single, half = make(types.float32), make(types.uint16)

    @kernel
    def either(job, *rest):
        if kv_is_float16(job) != 0:
            half(job, *rest)
        else:
            single(job, *rest)

    return either


def _make_head_cache(dtype: Any) -> Any:
    @kernel
    def head_cache(job, layer, row, head):
        """The HeadCache of one head of a layer, for the sequence of a row."""
        head_dim = _head_dim(job)
        value_dim = padded(head_dim, LANES)
        layer_stride = n_head(job) * PAGE * (head_dim + value_dim)
        keys = layer * layer_stride + head * PAGE * head_dim
        values = layer * layer_stride + n_head(job) * PAGE * head_dim + head * PAGE * value_dim
        table = at(page_tables(job), types.int64(table_starts(job)[row]))
        page_stride = n_layer(job) * layer_stride
        return HeadCache(cast(pages(job), dtype), table, page_stride, keys, values, head_dim, value_dim)

    return head_cache


# --- Keys and values --------------------------------------------------------------------------------------------------


def _make_append(dtype: Any) -> Any:
    head_cache = _make_head_cache(dtype)

    @kernel
    def append(job, layer, row, first, last):
        """Copy columns first to last - 1 of a row of qkv into the cache, head by head, if they are keys or values."""
        head_dim, position = _head_dim(job), types.int64(positions(job)[row])
        column = max(first, n_embd(job))
        while column < min(last, 3 * n_embd(job)):
            head, d = (column % n_embd(job)) // head_dim, column % head_dim
            count = min(head_dim - d, last - column)
            cache = head_cache(job, layer, row, head)
            page = at(cache.pages, types.int64(cache.table[position // PAGE]) * cache.page_stride)
            new = at(qkv(job), row * stride_of(3 * n_embd(job)) + column)
            if column < 2 * n_embd(job):
                append_key(at(page, cache.keys + d * PAGE), new, position, count)
            else:
                append_value(at(page, cache.values + d), new, position, count, cache.value_dim)
            column += count

    return append


_append = _for_each_kv_dtype(_make_append)


@kernel
def append_to_cache(job, layer, row, first, last):
    """Complete columns first to last - 1 of a row of qkv: add the bias, then copy keys and values into the cache."""
    start = row * stride_of(3 * n_embd(job)) + first
    add(at(qkv(job), start), at(_c_attn_bias(job, layer), first), last - first)
    _append(job, layer, row, first, last)


# --- Many rows --------------------------------------------------------------------------------------------------------


@kernel
def _queries(job, row, head):
    return at(qkv(job), row * stride_of(3 * n_embd(job)) + head * _head_dim(job))


@kernel
def are_consecutive(job, row, count):
    """True if rows row to row + count - 1 are at consecutive positions of one sequence."""
    for r in range(row + 1, row + count):
        if table_starts(job)[r] != table_starts(job)[row] or positions(job)[r] != positions(job)[row] + r - row:
            return False
    return True


def _make_attend_rows(dtype: Any) -> Any:
    head_cache = _make_head_cache(dtype)

    @kernel
    def attend_rows(job, layer, thread, first, last, head):
        """Attention of one head for rows first to last - 1: in one call if they are a whole tile of one sequence."""
        stride, out_stride = stride_of(3 * n_embd(job)), stride_of(n_embd(job))
        own_scratch, scale = at(scratch(job), thread * scratch_stride(job)), attention_scales(job)[layer]
        row = first
        while row < last:
            out, queries = at(attended(job), row * out_stride + head * _head_dim(job)), _queries(job, row, head)
            cache, position = head_cache(job, layer, row, head), types.int64(positions(job)[row])
            if last - row == QUERY_TILE and are_consecutive(job, row, QUERY_TILE):
                _attend_tile(out, out_stride, queries, stride, position, cache, scale, own_scratch)
                row += QUERY_TILE
            else:
                _attend_one(out, out_stride, queries, stride, position, cache, scale, own_scratch)
                row += 1

    return attend_rows


_attend_rows = _for_each_kv_dtype(_make_attend_rows)


@kernel
def _attend_head_of_tile(job, layer, item, thread):
    """Work item: one head of a tile of rows. Tiles are taken from the last one back: its past is the longest."""
    rows, heads = n_rows(job), n_head(job)
    first = (ceil_div(rows, QUERY_TILE) - 1 - item // heads) * QUERY_TILE
    _attend_rows(job, layer, thread, first, min(rows, first + QUERY_TILE), item % heads)


# --- Few rows ---------------------------------------------------------------------------------------------------------


@kernel
def _n_spans(job, row):
    return types.int64(positions(job)[row]) // SPAN + 1


@kernel
def _most_spans(job):
    spans = types.int64(0)
    for row in range(n_rows(job)):
        spans = max(spans, _n_spans(job, row))
    return spans


@kernel
def _state(job, row, head, span):
    size = state_floats(padded(_head_dim(job), LANES))
    return at(states(job), ((row * n_head(job) + head) * max_spans(job) + span) * size)


def _make_span_of_head(dtype: Any) -> Any:
    head_cache = _make_head_cache(dtype)

    @kernel
    def span_of_head(job, layer, thread, row, head, span):
        """Write the softmax state of one head of a row over one span of positions to `states`."""
        q = at(scratch(job), thread * scratch_stride(job))
        scale_queries(q, _queries(job, row, head), 0, attention_scales(job)[layer], 1, _head_dim(job))
        cache, position = head_cache(job, layer, row, head), types.int64(positions(job)[row])
        _attend_span(_state(job, row, head, span), q, position, span, cache, at(q, _head_dim(job)))

    return span_of_head


_span_of_head = _for_each_kv_dtype(_make_span_of_head)


@kernel
def _attend_span_of_head(job, layer, item, thread):
    """Work item: one head of one row over one span. A row with fewer spans than the longest one skips the rest."""
    heads, spans = n_head(job), _most_spans(job)
    row, head, span = item // (heads * spans), item // spans % heads, item % spans
    if span < _n_spans(job, row):
        _span_of_head(job, layer, thread, row, head, span)


@kernel
def _merge_spans(job, row, merged, out):
    """out [n_embd] = attention of all heads of a row, from their spans' states; merged is scratch for one state."""
    head_dim = _head_dim(job)
    value_dim = padded(head_dim, LANES)
    for head in range(n_head(job)):
        state = _state(job, row, head, 0)
        if _n_spans(job, row) > 1:
            for i in range(0, state_floats(value_dim), LANES):
                store(merged, i, load(state, i))
            for span in range(1, _n_spans(job, row)):
                merge(merged, _state(job, row, head, span), value_dim)
            state = merged
        conclude(at(out, head * head_dim), state, head_dim, value_dim)


# --- Both -------------------------------------------------------------------------------------------------------------


@kernel
def _n_items(job):
    if are_few(job, n_rows(job)):
        return n_rows(job) * n_head(job) * _most_spans(job)
    return ceil_div(n_rows(job), QUERY_TILE) * n_head(job)


@kernel
def _attend(job, layer, item, thread):
    if are_few(job, n_rows(job)):
        _attend_span_of_head(job, layer, item, thread)
    else:
        _attend_head_of_tile(job, layer, item, thread)


attention = make_phase(_n_items, _attend)
"""attended = softmax(scale * q @ k.T) @ v for every head of every row; with few rows, only `states` of its spans."""


@kernel
def merged_heads(job, layer, row, owner):
    """The `source` of attn.c_proj (see `make_linear`): the concatenated outputs of all heads of a row."""
    out = at(attended(job), buffer_row(row, owner) * stride_of(n_embd(job)))
    if are_few(job, n_rows(job)):
        _merge_spans(job, row, at(scratch(job), owner * scratch_stride(job)), out)
    return out
