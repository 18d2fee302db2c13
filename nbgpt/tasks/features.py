"""Features of texts for classifiers: hidden states of some layers, pooled to one vector for a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import index
from typing import Any, get_args

import numpy as np

from ..config import GPT2Config
from ..engine.engine import Engine
from ..operations import layer_norm
from ..text.prompts import Text
from ..tokenizer import Tokenizer
from ..weights import Pooling, Weights


def checked_layer(config: GPT2Config, layer: int) -> int:
    """A layer of `hidden_states`, counted from 0. Raises ValueError if there is no such layer."""
    n_layer = config.n_layer
    if not -n_layer - 1 <= index(layer) <= n_layer:
        raise ValueError(
            f"layer is {layer}; it must be from 0 (embeddings) to {n_layer} (after the last block and ln_f), "
            f"or from {-n_layer - 1} to -1 counted from the end"
        )
    return index(layer) % (n_layer + 1)


def checked_pooling(pooling: Any) -> Pooling:
    """A pooling. Raises ValueError for anything else."""
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling is {pooling!r:.40}; choose 'last', 'mean' or 'both'")
    checked: Pooling = pooling
    return checked


def encode_truncated(
    engine: Engine, tokenizer: Tokenizer, texts: Sequence[Text], bos: bool | None
) -> tuple[list[list[int]], int]:
    """Ids of each text, and how many texts were longer than the context.

    Of these the first tokens are left out, since the last one has read all others; <|endoftext|> stays before the rest
    if texts begin with it.
    """
    engine.check_open()
    n_ctx, bos_id = engine.config.n_ctx, tokenizer.bos_id
    batch, n_truncated = [tokenizer.encode_prompt(text, bos) for text in texts], 0
    for number, ids in enumerate(batch):
        if len(ids) > n_ctx:
            kept = [ids[0]] if ids[0] == bos_id else []
            batch[number] = kept + ids[len(ids) - n_ctx + len(kept) :]
            n_truncated += 1
    return batch, n_truncated


def pooled(
    engine: Engine,
    batch: Sequence[Sequence[int]],
    layers: Sequence[int],
    pooling: Pooling,
    bos_id: int | None,
    progress: Callable[[int], object] = lambda n_texts: None,
) -> np.ndarray:
    """Pooled hidden states after some layers. Their bits do not depend on the other texts, nor on the other layers.

    Args:
        engine: runs the model.
        batch: ids of each text, from 1 to n_ctx.
        layers: in ascending order, numbered as in transformers' `hidden_states`: 0 is the embedding, n_layer the last
            block followed by ln_f.
        pooling: "last", "mean", or "both", the last token's vector and then the mean.
        bos_id: a token that the mean leaves out where it begins a text, being the same for every text.
        progress: called with the number of texts that are done since the last call.

    Returns:
        float32 [len(layers), n_texts, n_embd, or twice that for "both"].
    """
    config = engine.config
    n_embd, is_both = config.n_embd, pooling == "both"
    vectors = np.empty((len(layers), len(batch), n_embd * (1 + is_both)), np.float32)
    for number, streams in enumerate(_streams(engine, batch, layers)):
        has_bos = streams.shape[1] > 1 and batch[number][0] == bos_id
        for layer, states, vector in zip(layers, streams, vectors[:, number], strict=True):
            rows = states[-1:] if pooling == "last" else states[has_bos:]
            if layer == config.n_layer:
                rows = ln_f(engine.weights, rows)
            if pooling != "mean":
                vector[:n_embd] = rows[-1]
            if pooling != "last":
                vector[-n_embd:] = rows.mean(axis=0, dtype=np.float64)
        progress(1)
    return vectors


def _streams(engine: Engine, batch: Sequence[Sequence[int]], layers: Sequence[int]) -> Iterator[np.ndarray]:
    """The residual stream of each text after some layers, before ln_f: float32 [len(layers), n_tokens, n_embd]."""
    parts = engine.hidden_after(batch, layers)
    rows = np.empty((len(layers), 0, engine.config.n_embd), np.float32)
    for ids in batch:
        while rows.shape[1] < len(ids):
            rows = np.concatenate((rows, next(parts)), axis=1)
        yield rows[:, : len(ids)]
        rows = rows[:, len(ids) :]


def ln_f(weights: Weights, states: np.ndarray) -> np.ndarray:
    """The final LayerNorm of float32 [n, n_embd], which the kernels compute only together with logits."""
    gain, bias = (weights.floats(f"ln_f.{part}")[: states.shape[1]] for part in ("weight", "bias"))
    return layer_norm(states, gain, bias, weights.config.layer_norm_epsilon).astype(np.float32)
