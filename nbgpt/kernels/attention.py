"""Causal attention over a paged KV cache.

    out = softmax(scale * q @ k.T) @ v                      (Vaswani et al. 2017)

A page holds 64 positions of all layers. For each layer it holds the keys of every head, transposed, [head_dim, 64], so
that one load reads one dimension of 16 keys, and then the values of every head, [64, value_dim], where value_dim is
head_dim padded to whole registers. The cache is float32 or float16; the type of the pointer tells a kernel which.

A span is four pages. Each span of a query's past gives a *state*: value_dim sums of weighted values, then the maximum
score and the sum of the weights, padded to a register. States are merged in the order of the spans (online softmax,
Milakov and Gimelshein 2018). So the bits of a row depend on its own past alone, and threads can share a long past.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types

from ..abi.layout import LANES, PAGE, SPAN_PAGES
from ..simd import (
    at,
    first,
    fma,
    fma_tile,
    kernel,
    load,
    put,
    row_tile,
    splat,
    store,
    store_tile,
    stream_tile,
    zero_tile,
)
from ..simd.codegen import TARGET
from .softmax import exp, softmax

SPAN = SPAN_PAGES * PAGE
_MOST_REGISTERS = 4  # the values of a head of 64 dimensions, or the keys of a page


class HeadCache(NamedTuple):
    """The keys and values of one head in one layer, of one sequence."""

    pages: Any  # pointer to the cache
    table: Any  # int32 pointer: the sequence's page numbers, in order
    page_stride: int  # elements of a page
    keys: int  # element of a page where the keys [head_dim, PAGE] begin
    values: int  # element of a page where the values [PAGE, value_dim] begin
    head_dim: int
    value_dim: int


@kernel
def append_key(keys, key, position, head_dim):  # keys: of one head and page; key [head_dim]
    """Write the key of one position."""
    for d in range(head_dim):
        put(keys, d * PAGE + position % PAGE, key[d])


@kernel
def append_value(values, value, position, head_dim, value_dim):  # values: of one head and page; value [head_dim]
    """Write the value of one position."""
    for d in range(head_dim):
        put(values, (position % PAGE) * value_dim + d, value[d])


@kernel
def state_floats(value_dim):
    """Floats of a state."""
    return value_dim + LANES


def _registers_of_tile(rows: int) -> int:
    """Registers of keys or values in a tile, so that it fits 32 registers of 16 lanes, or the equivalent of 8."""
    return _MOST_REGISTERS if TARGET.avx512 or rows == 1 else 1


def _make_sum_values(rows: int, registers: int) -> Any:
    """The weighted sum of the values of a span, for `registers` * 16 dimensions of the head."""
    read = stream_tile if rows == 1 else row_tile

    @kernel
    def sum_values(sums, weights, pages, table, page_stride, values, n_keys, value_dim):
        """sums = weights @ values; sums: in [rows] states, weights [rows, SPAN], values: in the pages of table."""
        tile = zero_tile(rows, registers)
        for start in range(0, n_keys, PAGE):
            page = at(pages, types.int64(table[start // PAGE]) * page_stride + values)
            for key in range(min(PAGE, n_keys - start)):
                value = read(page, key * value_dim, LANES, registers)
                tile = fma_tile(tile, weights, start + key, SPAN, value)
        store_tile(sums, 0, state_floats(value_dim), LANES, tile, registers)

    return sum_values


def _make_score(rows: int) -> Any:
    """The scores of the queries with the keys of one page."""
    registers, read = _registers_of_tile(rows), stream_tile if rows == 1 else row_tile

    @kernel
    def score(scores, q, keys, head_dim):  # scores [rows, PAGE of SPAN], q [head_dim, rows], keys [head_dim, PAGE]
        """scores = q.T @ keys."""
        for key in range(0, PAGE, registers * LANES):
            tile = zero_tile(rows, registers)
            for d in range(head_dim):
                tile = fma_tile(tile, q, d * rows, 1, read(keys, d * PAGE + key, LANES, registers))
            store_tile(scores, key, SPAN, LANES, tile, registers)

    return score


@kernel
def scale_queries(q, queries, stride, scale, rows, head_dim):
    """q [head_dim, rows] = scale * queries.T; rows of queries are `stride` floats apart."""
    for r in range(rows):
        for d in range(head_dim):
            q[d * rows + r] = queries[r * stride + d] * scale


def make_attend_span(rows: int) -> Any:
    """The states of `rows` queries at consecutive positions of one sequence over one span."""
    score, wide = _make_score(rows), _registers_of_tile(rows)
    sum_wide = _make_sum_values(rows, wide)
    sum_narrow = _make_sum_values(rows, 1) if wide > 1 else sum_wide

    @kernel
    def attend_span(states, q, position, span, cache, weights):
        """States [rows] of queries q [head_dim, rows] at position, position + 1, ... over one span of their past.

        cache: a HeadCache. weights [rows, SPAN] is scratch.
        """
        pages, page_stride, values = cache.pages, cache.page_stride, cache.values
        head_dim, value_dim = cache.head_dim, cache.value_dim
        table, size = at(cache.table, span * SPAN_PAGES), state_floats(value_dim)
        n_seen = position + 1 - span * SPAN  # keys of the span that the first query sees, if positive
        n_keys = min(SPAN, n_seen + rows - 1)
        for start in range(0, n_keys, PAGE):
            page = at(pages, types.int64(table[start // PAGE]) * page_stride)
            score(at(weights, start), q, at(page, cache.keys), head_dim)
        for r in range(rows):
            softmax(at(weights, r * SPAN), n_seen + r, n_keys, at(states, r * size + value_dim))
        d = 0
        while d + wide * LANES <= value_dim:
            sum_wide(at(states, d), weights, pages, table, page_stride, values + d, n_keys, value_dim)
            d += wide * LANES
        while d < value_dim:
            sum_narrow(at(states, d), weights, pages, table, page_stride, values + d, n_keys, value_dim)
            d += LANES

    return attend_span


@kernel
def merge(state, later, value_dim):
    """Merge the state of the next span, in which the query sees at least one key, into a state."""
    top = max(state[value_dim], later[value_dim])
    factor, later_factor = exp(splat(state[value_dim] - top)), exp(splat(later[value_dim] - top))
    for i in range(0, value_dim, LANES):
        store(state, i, fma(load(later, i), later_factor, load(state, i) * factor))
    sums = splat(state[value_dim + 1]) * factor
    state[value_dim] = top
    state[value_dim + 1] = first(fma(splat(later[value_dim + 1]), later_factor, sums))


@kernel
def conclude(out, state, head_dim, value_dim):
    """out [head_dim] = weighted values / sum of the weights."""
    sums = splat(state[value_dim + 1])
    whole = head_dim // LANES * LANES
    for d in range(0, whole, LANES):
        store(out, d, load(state, d) / sums)
    for d in range(whole, head_dim):  # a whole register would overwrite the next head
        out[d] = state[d] / state[value_dim + 1]


def make_attend(rows: int) -> Any:
    """Attention of `rows` queries at consecutive positions of one sequence."""
    attend_span = make_attend_span(rows)

    @kernel
    def attend(out, out_stride, queries, stride, position, cache, scale, scratch):
        """out [rows, head_dim] = softmax(scale * queries @ keys.T) @ values, rows at position, position + 1, ...

        cache: a HeadCache. Rows of out and queries are out_stride and stride floats apart.
        scratch has attention_floats(rows, head_dim) floats: see abi/layout.py.
        """
        head_dim, value_dim = cache.head_dim, cache.value_dim
        size = state_floats(value_dim)
        states, q = scratch, at(scratch, 2 * rows * size)
        later, weights = at(states, rows * size), at(q, rows * head_dim)
        scale_queries(q, queries, stride, scale, rows, head_dim)
        attend_span(states, q, position, 0, cache, weights)
        for span in range(1, (position + rows - 1) // SPAN + 1):
            attend_span(later, q, position, span, cache, weights)
            for r in range(max(0, span * SPAN - position), rows):
                merge(at(states, r * size), at(later, r * size), value_dim)
        for r in range(rows):
            conclude(at(out, r * out_stride), at(states, r * size), head_dim, value_dim)

    return attend
