"""The logit lens at the end of a text: what each layer would have written next."""

from __future__ import annotations

import numpy as np

from ..engine.engine import Engine
from ..engine.kv_cache import Sequence
from ..engine.model_runner import MAX_ROWS


def logit_lens(engine: Engine, ids: list[int]) -> np.ndarray:
    """Logits of the next token, read from the residual stream before each layer and after the last.

    Costs one pass over the text and n_layer + 1 times the logits; `trace` has the same for every position.

    Args:
        engine: runs the model.
        ids: token ids, length n from 1 to n_ctx.

    Returns:
        float32 [n_layer + 1, n_vocab]; row l is the LM head after ln_f, applied to the stream that layer l reads; the
        last row are the model's logits.

    Raises:
        ValueError: there are no ids, or more than n_ctx.
    """
    n_layer, n_ctx = engine.config.n_layer, engine.config.n_ctx
    if not 1 <= len(ids) <= n_ctx:
        raise ValueError(f"the text has {len(ids)} tokens; it must have from 1 to {n_ctx}, this model's context")
    stream = _run(engine, ids, (0, 0))
    lasts = [stream[-1:]]
    for layer in range(n_layer):
        stream = _run(engine, ids, (layer, layer + 1), stream)
        lasts.append(stream[-1:])
    return np.concatenate([_logits(engine, ids[-1:], last) for last in lasts])


def _run(engine: Engine, ids: list[int], layers: tuple[int, int], stream: np.ndarray | None = None) -> np.ndarray:
    """The residual stream after some layers, float32 [n, n_embd]; `stream` is what they read."""
    sequence, parts = Sequence(), []
    try:
        for start in range(0, len(ids), MAX_ROWS):
            part = slice(start, start + MAX_ROWS)
            read = None if stream is None else stream[part]
            parts.append(engine.run_layers(sequence, ids[part], layers, read)["x"])
    finally:
        engine.free(sequence)
    return np.concatenate(parts)


def _logits(engine: Engine, ids: list[int], stream: np.ndarray) -> np.ndarray:
    """LM head after ln_f, applied to one row of the residual stream: float32 [1, n_vocab]."""
    n_layer, sequence = engine.config.n_layer, Sequence()
    try:
        logits: np.ndarray = engine.run_layers(sequence, ids, (n_layer, n_layer), stream, True)["logits"]
        return logits
    finally:
        engine.free(sequence)
