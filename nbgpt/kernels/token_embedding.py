"""The token's embedding plus the position's: the start of the residual stream.

The token matrix is stored in panels for the LM head, so the embedding of a token is one lane of its panel.
"""

from __future__ import annotations

from typing import Any

from numba import types

from ..abi.layout import GROUP_INT8, LANES
from ..simd import at, bfloat_at, cast, half_at, kernel


@kernel
def embed_float32(out, token, position, w, n_embd, n_in):  # out, position [n_embd]
    """out = w[token] + position."""
    weights = at(cast(w[0], types.float32), (token // LANES) * n_in * LANES + token % LANES)
    for k in range(n_embd):
        out[k] = weights[k * LANES] + position[k]


@kernel
def embed_float16(out, token, position, w, n_embd, n_in):  # out, position [n_embd]
    """out = w[token] + position."""
    weights = at(cast(w[0], types.uint16), (token // LANES) * n_in * LANES + token % LANES)
    for k in range(n_embd):
        out[k] = half_at(weights, k * LANES) + position[k]


@kernel
def embed_bfloat16(out, token, position, w, n_embd, n_in):  # out, position [n_embd]
    """out = w[token] + position."""
    weights = at(cast(w[0], types.uint16), (token // LANES) * n_in * LANES + 2 * (token % LANES))
    for k in range(n_embd):
        out[k] = bfloat_at(weights, (k // 2) * 2 * LANES + k % 2) + position[k]


@kernel
def embed_int8(out, token, position, w, n_embd, n_in):  # out, position [n_embd]
    """out = scale * (w[token] - 128) + position."""
    panel, lane = token // LANES, token % LANES
    weights = at(w[0], panel * n_in * LANES + 4 * lane)
    scales = at(cast(w[1], types.uint16), panel * (n_in // GROUP_INT8) * LANES + lane)
    for k in range(n_embd):
        number = types.float32(types.int32(weights[(k // 4) * 4 * LANES + k % 4]) - types.int32(128))
        out[k] = number * half_at(scales, (k // GROUP_INT8) * LANES) + position[k]


EMBEDS: dict[str, Any] = {
    "float32": embed_float32,
    "float16": embed_float16,
    "bfloat16": embed_bfloat16,
    "int8": embed_int8,
}
"""The embedding of one row, by the type of the token matrix."""
