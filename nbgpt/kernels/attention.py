"""Causal attention over a paged KV cache.

A page holds 64 positions of all layers. For each layer it has the keys of every head, transposed, [head_dim, 64], so
that one load brings one dimension of 16 keys, and then the values of every head, [64, value_dim], where value_dim is
head_dim padded to whole registers. Pages are read in the order of their positions, so the bits of a row depend on its
own past alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from ..layout import LANES, MAX_QUERY_TILE, PAGE, VALUE_REGISTERS
from ..simd import at, fma_tile, kernel, load_tile, scale_rows, splat, store, store_tile, zero_tile
from ..simd.codegen import TARGET
from .softmax import softmax_page

QUERY_TILE = MAX_QUERY_TILE if TARGET.avx512 else 2
"""Queries at consecutive positions that share a tile, by the number of registers."""
_KEY_REGISTERS = PAGE // LANES
_MINUS_INFINITY = np.float32(-np.inf)


@kernel
def append_key(keys, key, position, head_dim):  # keys: of one head and page; key [head_dim]
    """Store the key of one position."""
    for d in range(head_dim):
        keys[d * PAGE + position % PAGE] = key[d]


@kernel
def append_value(values, value, position, head_dim, value_dim):  # values: of one head and page; value [head_dim]
    """Store the value of one position."""
    for d in range(head_dim):
        values[(position % PAGE) * value_dim + d] = value[d]


def _make_add_values(rows: int, registers: int) -> Any:
    """A step of the weighted sum of values over one page, for some registers of the head's dimensions."""

    @kernel
    def add_values(sums, factors, weights, values, n_keys, value_dim):
        """sums = factors * sums + weights @ values: [rows, ...], [rows], [rows, PAGE], [PAGE, ...]."""
        tile = load_tile(sums, 0, value_dim, LANES, rows, registers)
        tile = scale_rows(tile, factors, 0, 1, registers)
        for key in range(n_keys):
            value = load_tile(values, key * value_dim, 0, LANES, 1, registers)
            tile = fma_tile(tile, weights, key, PAGE, value)
        store_tile(sums, 0, value_dim, LANES, tile, registers)

    return add_values


def _make_score(rows: int) -> Any:
    """How well the queries fit each key of one page."""

    @kernel
    def score(scores, q, keys, head_dim):  # scores [rows, PAGE], q [head_dim, rows], keys [head_dim, PAGE]
        """scores = q.T @ keys."""
        tile = zero_tile(rows, _KEY_REGISTERS)
        for d in range(head_dim):
            tile = fma_tile(tile, q, d * rows, 1, load_tile(keys, d * PAGE, 0, LANES, 1, _KEY_REGISTERS))
        store_tile(scores, 0, PAGE, LANES, tile, _KEY_REGISTERS)

    return score


def _make_begin(rows: int) -> Any:
    """What stands in the scratch before the first page."""

    @kernel
    def begin(q, running, sums, queries, stride, scale, head_dim, value_dim):
        """q [head_dim, rows] = scale * queries.T, the softmax has seen nothing, sums [rows, value_dim] = 0."""
        for r in range(rows):
            for d in range(head_dim):
                q[d * rows + r] = queries[r * stride + d] * scale
            running[2 * r] = _MINUS_INFINITY
            running[2 * r + 1] = types.float32(0)
        for i in range(0, rows * value_dim, LANES):
            store(sums, i, splat(types.float32(0)))

    return begin


def make_attend(rows: int) -> Any:
    """Attention of `rows` queries at consecutive positions of one sequence."""
    begin, score = _make_begin(rows), _make_score(rows)
    add_wide, add_narrow = _make_add_values(rows, VALUE_REGISTERS), _make_add_values(rows, 1)

    @kernel
    def attend(out, out_stride, queries, stride, position, head, scale, scratch):
        """out [rows, head_dim] = softmax(scale * queries @ keys.T) @ values, rows at position, position + 1, ...

        head = (pages, table, page_stride, keys, values, head_dim, value_dim): the cache, the sequence's pages in
        order, floats between pages, and where in a page this layer's and head's keys and values begin.
        Rows are out_stride and stride apart; scratch has rows * (head_dim + value_dim + PAGE + 3) floats.
        """
        pages, table, page_stride, keys, values, head_dim, value_dim = head
        q = scratch
        sums = at(q, rows * head_dim)
        weights = at(sums, rows * value_dim)
        running = at(weights, rows * PAGE)
        factors = at(running, rows * 2)
        begin(q, running, sums, queries, stride, scale, head_dim, value_dim)
        for number in range((position + rows - 1) // PAGE + 1):
            page = at(pages, types.int64(table[number]) * page_stride)
            score(weights, q, at(page, keys), head_dim)
            n_past = position + 1 - number * PAGE  # keys of this page that the first query may see, if not negative
            for r in range(rows):
                factors[r] = softmax_page(at(weights, r * PAGE), n_past + r, at(running, 2 * r))
            n_keys = min(PAGE, n_past + rows - 1)
            d = 0
            while d + VALUE_REGISTERS * LANES <= value_dim:
                add_wide(at(sums, d), factors, weights, at(page, values + d), n_keys, value_dim)
                d += VALUE_REGISTERS * LANES
            while d < value_dim:
                add_narrow(at(sums, d), factors, weights, at(page, values + d), n_keys, value_dim)
                d += LANES
        for r in range(rows):
            for d in range(head_dim):
                out[r * out_stride + d] = sums[r * value_dim + d] / running[2 * r + 1]

    return attend
