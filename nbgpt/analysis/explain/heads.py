"""Data of the panels on attention: weights of all heads, what each head has a habit of, some queries and keys."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from ..trace import Trace
from .packed import pack, pack_floats, packed

_MAX_CELLS = 60_000_000
"""Weights that are compressed at all; of a larger trace, only larger blocks are looked at."""
_ATTENTION_BYTES = 2_200_000
_QUERY_KEY_BYTES = 1_200_000


def heads_data(trace: Trace) -> dict[str, Any]:
    """Everything that the page says about heads."""
    n_layer, n_head, n, _ = trace.q.shape
    block = 1
    while not _fits(trace, block):
        block *= 2
    squares, habits = [], np.empty((n_layer, n_head, 5))
    for layer in range(n_layer):
        weights = trace.attention_of(layer)
        if not np.isfinite(weights).all():
            raise ValueError("the model's numbers overflow on this text; there is nothing to show")
        habits[layer] = habits_of(weights)
        squares.append(_coarser(np.rint(255 * weights).astype(np.uint8), block))
    attention, block = _compressed(np.array(squares), block)
    order = np.argsort(-habits[..., 4].ravel(), kind="stable")
    return {
        "attention": attention,
        "block": block,
        "habits": pack_floats(habits),
        "best": order[:5].tolist(),
        "products": products(trace, order[: _QUERY_KEY_BYTES // (4 * n * trace.config.head_dim)].tolist()),
        "scales": [trace.config.attention_scale(layer) for layer in range(n_layer)],
    }


def _fits(trace: Trace, block: int) -> bool:
    n_layer, n_head, n, _ = trace.q.shape
    return bool(n_layer * n_head * (n / block) ** 2 <= _MAX_CELLS)


def habits_of(attention: np.ndarray) -> np.ndarray:
    """What heads look at, from weights [n_head, n, n]: float64 [n_head, 5].

    The first four are mean shares: of the token itself, of the one before it, of the first one, of all others (a token
    that is several of these counts as the first that applies). The last is how sharply a head looks past the obvious:
    the mean over tokens, from the fourth on, of the largest weight on one that is neither the first, nor itself, nor
    the one before. It is 0 for a text of less than four tokens.
    """
    n = attention.shape[-1]
    offset = np.subtract.outer(np.arange(n), np.arange(n))
    own, before = offset == 0, offset == 1
    first = (np.arange(n) == 0)[None] & ~own & ~before
    others = (offset > 1) & ~first
    shares = [np.where(mask, attention, 0).sum(axis=(1, 2)) / n for mask in (own, before, first, others)]
    sharp = np.where(others, attention, 0).max(axis=2)[:, 3:]
    return np.stack([*shares, sharp.mean(axis=1) if n > 3 else np.zeros(len(attention))], axis=1)


def products(trace: Trace, heads: list[int]) -> dict[str, Any]:
    """Queries and keys of some heads, by number: int16 with a unit for each head, as exact as float16."""
    n_layer, n_head, n, head_dim = trace.q.shape
    pairs = np.stack([trace.q, trace.k], axis=2).reshape(n_layer * n_head, 2, n, head_dim)[heads]
    units = np.abs(pairs).max(axis=(2, 3), initial=1e-30).astype(np.float64) / 32767
    numbers = np.rint(pairs / units[..., None, None]).astype(np.int16)
    return {"heads": heads, "units": units.tolist(), "numbers": pack(numbers)}


def _coarser(cells: np.ndarray, factor: int) -> np.ndarray:
    """The largest of each factor x factor cells of the last two axes."""
    *heads, n, _ = cells.shape
    missing = -n % factor
    if missing:
        cells = np.pad(cells, [(0, 0)] * len(heads) + [(0, missing)] * 2)
    m = (n + missing) // factor
    coarse: np.ndarray = cells.reshape(*heads, m, factor, m, factor).max(axis=(-3, -1))
    return coarse


def _compressed(cells: np.ndarray, block: int) -> tuple[dict[str, Any], int]:
    """Weights [n_layer, n_head, m, m] in blocks as small as the page can hold: packed triangles, tokens of a block."""
    while True:
        i, j = np.tril_indices(cells.shape[-1])
        triangles = cells[:, :, i, j]
        data = zlib.compress(triangles.tobytes(), 6)
        if len(data) <= _ATTENTION_BYTES or cells.shape[-1] <= 64:
            break
        cells, block = _coarser(cells, 2), 2 * block
    return packed(triangles, data), block
