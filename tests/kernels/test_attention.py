"""Attention over a paged cache against its formula; the bits of a query do not depend on its tile."""

import functools

import numpy as np
import pytest
import reference
from numba import njit
from reference import padded

from nbgpt.abi.layout import LANES, PAGE, QUERY_TILE, attention_floats
from nbgpt.kernels.attention import HeadCache, append_key, append_value, make_attend
from nbgpt.simd import at, data

HEAD_DIMS = (8, 16, 20, 48, 64, 80, 128)
POSITIONS = (0, 1, 58, 59, 60, 63, 64, 65, 122, 127, 128, 250, 253, 256, 511, 515)  # of a tile's first query


@njit(error_model="numpy")
def append(pages, table, place, keys, values):  # [n_seq, head_dim]
    page_stride, first_key, first_value, head_dim, value_dim = place
    for position in range(len(keys)):
        page = at(data(pages), table[position // PAGE] * page_stride)
        append_key(at(page, first_key), at(data(keys), position * head_dim), position, head_dim)
        append_value(at(page, first_value), at(data(values), position * head_dim), position, head_dim, value_dim)


@functools.cache
def compiled(rows):
    kernel = make_attend(rows)

    @njit(error_model="numpy")
    def attend(out, queries, position, scale, scratch, pages, table, place):
        page_stride, keys, values, head_dim, value_dim = place
        cache = HeadCache(data(pages), data(table), page_stride, keys, values, head_dim, value_dim)
        kernel(data(out), out.shape[1], data(queries), queries.shape[1], position, cache, scale, data(scratch))

    return attend


class Cache:
    """One head's keys and values in pages that hold nothing else but NaN, out of order, other heads around them."""

    def __init__(self, keys, values, dtype=np.float32):
        n_seq, head_dim = keys.shape
        value_dim = padded(head_dim, LANES)
        first_key, first_value = 3, 3 + head_dim * PAGE + 5
        page_stride = first_value + value_dim * PAGE + 7
        n_pages = -(-n_seq // PAGE)
        self.table = np.array([2, 0, 3, 1, 8, 5, 4, 6, 7], np.int32)[:n_pages]
        pages = np.full(9 * page_stride, np.nan, dtype)
        self.pages = pages.view(np.uint16) if dtype == np.float16 else pages
        self.place = (page_stride, first_key, first_value, head_dim, value_dim)
        append(self.pages, self.table, self.place, keys, values)

    def attend(self, queries, position, scale):  # [rows, head_dim] at position, position + 1, ...
        rows, head_dim = queries.shape
        stride = head_dim + 9
        padded_queries, out = np.full((2, rows, stride), np.nan, np.float32)
        padded_queries[:, :head_dim] = queries
        size = attention_floats(rows, head_dim)
        scratch = np.full(size + LANES, np.nan, np.float32)
        arguments = np.float32(scale), scratch, self.pages, self.table, self.place
        compiled(rows)(out, padded_queries, position, *arguments)
        assert np.isnan(out[:, head_dim:]).all()
        assert np.isnan(scratch[size:]).all()
        return out[:, :head_dim]


def both_ways(q, k, v, scale, position, dtype=np.float32):
    """The queries as a tile and one by one, from caches that know no future and from one that does."""
    tile = Cache(k, v, dtype).attend(q, position, scale)
    for row, query in enumerate(q):
        n_past = position + row + 1
        alone = Cache(k[:n_past], v[:n_past], dtype).attend(query[None], n_past - 1, scale)
        np.testing.assert_array_equal(alone[0], tile[row])
    return tile


def random_head(rng, head_dim, n_seq):
    q = rng.standard_normal((QUERY_TILE, head_dim), np.float32)
    k, v = rng.standard_normal((2, n_seq, head_dim), np.float32)
    return q, k, v


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_random_heads(rng, head_dim, position):
    q, k, v = random_head(rng, head_dim, position + QUERY_TILE)
    scale = head_dim**-0.5
    out = both_ways(q, k, v, scale, position)
    expected = reference.attention(*map(np.float64, (q, k, v)), scale)
    np.testing.assert_allclose(out, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("position", [0, 70, 300])
@pytest.mark.parametrize("head_dim", [20, 64])
def test_a_cache_of_half_floats(rng, head_dim, position):
    q, k, v = random_head(rng, head_dim, position + QUERY_TILE)
    out = both_ways(q, k, v, 0.2, position, np.float16)
    k, v = (np.float64(np.float16(x)) for x in (k, v))
    np.testing.assert_allclose(out, reference.attention(np.float64(q), k, v, 0.2), atol=2e-6, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 0.125 / 7])
def test_other_scales(rng, scale):
    q, k, v = random_head(rng, 64, 100)
    expected = reference.attention(*map(np.float64, (q, k, v)), scale)
    np.testing.assert_allclose(both_ways(q, k, v, scale, 100 - QUERY_TILE), expected, atol=1e-5, rtol=0)


def test_scores_far_apart_and_outlier_values(rng):
    """A sharp head of a trained model: one key takes all, wherever it is."""
    q, k, v = random_head(rng, 64, 140)
    q *= 30
    k[::20] *= 30
    v[:, 5] = 3e3
    expected = reference.attention(*map(np.float64, (q, k, v)), 0.125)
    np.testing.assert_allclose(both_ways(q, k, v, 0.125, 140 - QUERY_TILE), expected, atol=3e3 * 2e-6, rtol=0)


def test_equal_keys_make_a_mean(rng):
    q, k, v = random_head(rng, 48, 130)
    k[:] = k[0]
    expected = [v[: 130 - QUERY_TILE + row + 1].mean(axis=0) for row in range(QUERY_TILE)]
    np.testing.assert_allclose(both_ways(q, k, v, 0.14, 130 - QUERY_TILE), expected, atol=1e-6, rtol=0)
