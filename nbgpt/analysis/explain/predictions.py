"""Data of the panels on predictions: surprise, logit lens, direct logit attribution."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..attribution import attribute, attribute_mean
from ..trace import Trace
from .packed import pack, pack_floats

_SHOWN = 5
"""Likeliest tokens of each layer that a page shows; of the last layer it shows all that the trace has."""
_SHARES = 400_000
"""Numbers of the attribution at most."""
_MAX_CANDIDATES = 6


def predictions_data(trace: Trace) -> dict[str, Any]:
    """Surprise of each token, what each layer would predict, and what the model does."""
    return {
        "bits": pack_floats(np.nan_to_num(trace.surprisal, nan=0.0)),
        "ranks": pack(trace.ranks),
        "lens_ids": pack(trace.lens_ids[..., :_SHOWN]),
        "lens_probabilities": pack_floats(trace.lens_probabilities[..., :_SHOWN]),
        "next_ids": pack(trace.lens_ids[-1]),
        "next_probabilities": pack_floats(trace.lens_probabilities[-1]),
        "attribution": attribution_data(trace),
    }


def attribution_data(trace: Trace) -> dict[str, Any]:
    """Shares in the logits of the text's next token and of the likeliest ones, after as many tokens as there is room.

    ids [m, c]: the first is the text's next token, or the likeliest after the last one; then the likeliest others.
    shares [m, c + 1, n_parts]: the last row is the mean of all logits. first: the position of the first row.
    """
    n, n_parts = len(trace.ids), trace.config.n_layer * (trace.config.n_head + 1) + 3
    rows = _SHARES // n_parts
    n_candidates = max(2, min(_MAX_CANDIDATES, rows // n - 1, trace.lens_ids.shape[-1]))
    first = max(0, n - max(1, rows // (n_candidates + 1)))
    positions = np.arange(first, n)
    ids, logits = candidates(trace, positions, n_candidates)
    shares = attribute(trace, positions, ids, logits)
    means = attribute_mean(trace, positions)
    return {
        "first": first,
        "ids": pack(ids),
        "logits": pack_floats(logits),
        "shares": pack_floats(np.concatenate([shares, means[:, None]], axis=1)),
    }


def candidates(trace: Trace, positions: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids whose logits are taken apart after each position, int32 [m, n], and the logits, float64 [m, n]."""
    ids = np.empty((len(positions), n), np.int32)
    logits = np.empty((len(positions), n))
    for row, position in enumerate(positions.tolist()):
        likeliest = np.log(trace.lens_probabilities[-1, position].astype(np.float64))
        chances = dict(zip(trace.lens_ids[-1, position].tolist(), likeliest.tolist(), strict=True))
        if position + 1 < len(trace.ids):
            following = int(trace.ids[position + 1])
            chances = {following: -float(trace.nll[position + 1]), **chances}
        ids[row], logprobs = zip(*list(chances.items())[:n], strict=True)
        logits[row] = np.array(logprobs) + trace.log_sum_exp[position]
    return ids, logits
