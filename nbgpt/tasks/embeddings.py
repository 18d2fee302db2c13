"""Hidden states of a text's tokens, and one vector for a whole text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from ..engine.engine import Engine
from ..text.prompts import Text
from ..tokenizer import Tokenizer
from .features import checked_layer, ln_f, pooled
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
    layer = checked_layer(engine.config, layer)
    ids = encode_batch(engine, tokenizer, [text], bos, room=engine.config.n_ctx)
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
    vectors: np.ndarray = pooled(engine, batch, [engine.config.n_layer], pooling, tokenizer.bos_id)[0]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalize else vectors
