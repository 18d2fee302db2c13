"""Hidden states of a text's tokens, and one vector for a whole text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from ..engine.engine import Engine
from ..text.prompts import Text, is_one
from ..tokenizer import Tokenizer
from .features import checked_layer, ln_f, pooled
from .scoring import encode_batch

Pooling = Literal["mean", "last"]


def hidden_states(
    engine: Engine, tokenizer: Tokenizer, texts: Text | Sequence[Text], layer: int = -1, *, bos: bool | None = None
) -> np.ndarray | list[np.ndarray]:
    """Hidden states of a text, or of several, after a layer, numbered as in transformers' `hidden_states`.

    Args:
        engine: runs the model.
        tokenizer: the model's tokenizer.
        texts: one text, or several, each of at most n_ctx tokens.
        layer: 0 is the embedding, i the residual stream after block i, n_layer the last block followed by ln_f;
            negative numbers count from the end: -1 is what the LM head reads.
        bos: read <|endoftext|> first, which has a row of its own; None: as the model's file says.

    Returns:
        float32 [n_tokens, n_embd]; of several texts a list of these.

    Raises:
        ValueError: there is no such layer, or a text does not fit the context.
    """
    n_layer = engine.config.n_layer
    layer = checked_layer(engine.config, layer)
    batch = encode_batch(engine, tokenizer, _several(texts), bos, room=engine.config.n_ctx)
    rows = np.concatenate([np.empty((0, engine.config.n_embd), np.float32), *engine.hidden(batch, layer)])
    if layer == n_layer:
        rows = ln_f(engine.weights, rows)
    states = np.split(rows, np.cumsum([len(ids) for ids in batch])[:-1])
    return states[0] if is_one(texts) else states[: len(batch)]


def embed(
    engine: Engine,
    tokenizer: Tokenizer,
    texts: Text | Sequence[Text],
    pooling: Pooling = "mean",
    *,
    bos: bool | None = None,
    layer: int = -1,
    normalize: bool = True,
) -> np.ndarray:
    """One vector for each text, from its hidden states. Its bits do not depend on the other texts.

    Args:
        engine: runs the model.
        tokenizer: the model's tokenizer.
        texts: each of at most n_ctx tokens; or one text.
        pooling: "mean" over the text's tokens, without the <|endoftext|> before them, which is the same for every
            text; or "last", the one token that attends to all others.
        layer: whose hidden states are read: see `hidden_states`.
        normalize: scale to length 1, so that dot products are cosines.
        bos: begin with <|endoftext|>; None: as the model's file says.

    Returns:
        float32 [n_texts, n_embd]; of one text [n_embd].

    Raises:
        ValueError: there is no such pooling or layer, or a text does not fit the context.
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling is {pooling!r}; choose 'mean' or 'last'")
    layer = checked_layer(engine.config, layer)
    batch = encode_batch(engine, tokenizer, _several(texts), bos, room=engine.config.n_ctx)
    vectors: np.ndarray = pooled(engine, batch, [layer], pooling, tokenizer.bos_id)[0]
    if normalize:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[0] if is_one(texts) else vectors


def _several(texts: Any) -> list[Text]:
    """One text or several, as a list."""
    return [texts] if is_one(texts) else texts
