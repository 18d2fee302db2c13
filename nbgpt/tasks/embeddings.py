"""Hidden states of a text's tokens, and one vector for a whole text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import index
from typing import Literal, get_args

import numpy as np

from ..engine.engine import Engine
from ..operations import layer_norm
from ..text.prompts import Text
from ..tokenizer import Tokenizer
from ..weights import Weights
from .scoring import encode_batch

Pooling = Literal["mean", "last"]


def hidden_states(
    engine: Engine, tokenizer: Tokenizer, text: Text, layer: int = -1, *, bos: bool | None = None
) -> np.ndarray:
    """Hidden states of a text after a layer, numbered as in transformers' `hidden_states`.

    Args:
        engine: runs the model.
        tokenizer: the model's tokenizer.
        text: at most n_ctx tokens.
        layer: 0 is the embedding, i the residual stream after block i, n_layer the last block followed by ln_f;
            negative numbers count from the end: -1 is what the LM head reads.
        bos: read <|endoftext|> first, which has a row of its own; None: as the model's file says.

    Returns:
        float32 [n_tokens, n_embd].

    Raises:
        ValueError: there is no such layer, or the text does not fit the context.
    """
    n_layer = engine.config.n_layer
    if not -n_layer - 1 <= index(layer) <= n_layer:
        raise ValueError(
            f"layer is {layer}; it must be from 0 (embeddings) to {n_layer} (after the last block and ln_f), "
            f"or from {-n_layer - 1} to -1 counted from the end"
        )
    ids = encode_batch(engine, tokenizer, [text], bos, room=engine.config.n_ctx)
    layer %= n_layer + 1
    states = np.concatenate(list(engine.hidden(ids, layer)))
    return ln_f(engine.weights, states) if layer == n_layer else states


def embed(
    engine: Engine,
    tokenizer: Tokenizer,
    texts: Sequence[Text],
    pooling: Pooling = "mean",
    *,
    normalize: bool = True,
    bos: bool | None = None,
) -> np.ndarray:
    """One vector for each text, from its final hidden states. Its bits do not depend on the other texts.

    Args:
        engine: runs the model.
        tokenizer: the model's tokenizer.
        texts: each of at most n_ctx tokens.
        pooling: "mean" over the text's tokens, without the <|endoftext|> before them, which is the same for every
            text; or "last", the one token that attends to all others.
        normalize: scale to length 1, so that dot products are cosines.
        bos: begin with <|endoftext|>; None: as the model's file says.

    Returns:
        float32 [n_texts, n_embd].

    Raises:
        ValueError: there is no such pooling, or a text does not fit the context.
        TypeError: texts is a text instead of a list.
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling is {pooling!r}; choose 'mean' or 'last'")
    batch = encode_batch(engine, tokenizer, texts, bos, room=engine.config.n_ctx)
    vectors = np.empty((len(batch), engine.config.n_embd), np.float32)
    for number, states in enumerate(final_states(engine, batch)):
        has_bos = len(states) > 1 and batch[number][0] == tokenizer.bos_id
        rows = states[-1:] if pooling == "last" else states[has_bos:]
        vectors[number] = ln_f(engine.weights, rows).mean(axis=0, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalize else vectors


def final_states(engine: Engine, batch: list[list[int]]) -> Iterator[np.ndarray]:
    """The residual stream after the last block of each text's ids, before ln_f: float32 [n_tokens, n_embd]."""
    parts = engine.hidden(batch, engine.config.n_layer)
    rows = np.empty((0, engine.config.n_embd), np.float32)
    for ids in batch:
        while len(rows) < len(ids):
            rows = np.concatenate((rows, next(parts)))
        yield rows[: len(ids)]
        rows = rows[len(ids) :]


def ln_f(weights: Weights, states: np.ndarray) -> np.ndarray:
    """The final LayerNorm of float32 [n, n_embd], which the kernels compute only together with logits."""
    gain, bias = (weights.floats(f"ln_f.{part}")[: states.shape[1]] for part in ("weight", "bias"))
    return layer_norm(states, gain, bias, weights.config.layer_norm_epsilon).astype(np.float32)
