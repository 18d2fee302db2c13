"""What a model makes of a text on its way to the logits: hidden states, and one vector for a whole text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import index
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ..weights import Weights
from .scoring import encode_batch

if TYPE_CHECKING:
    from ..model import Model

Pooling = Literal["mean", "last"]


def hidden_states(model: Model, text: str, layer: int = -1, *, bos: bool | None = None) -> np.ndarray:
    """What stands at each token, float32 [n_tokens, n_embd], as transformers' `hidden_states[layer]`.

    layer: 0 is the embeddings, i the residual stream after block i, but n_layer is after the last block and ln_f;
    negative numbers count from the end, so -1 is what the logits are made from.
    bos: read <|endoftext|> first, which has a row of its own; None: as the model's file says.
    Raises ValueError for a layer that there is not and for a text that is longer than the context.
    """
    n_layer = model.config.n_layer
    if not -n_layer - 1 <= index(layer) <= n_layer:
        raise ValueError(
            f"layer is {layer}; it must be from 0 (embeddings) to {n_layer} (after the last block and ln_f), "
            f"or from {-n_layer - 1} to -1 counted from the end"
        )
    ids = encode_batch(model, [text], bos, room=model.config.n_ctx)
    layer %= n_layer + 1
    states = np.concatenate(list(model.engine.hidden(ids, layer)))
    return ln_f(model.weights, states) if layer == n_layer else states


def embed(
    model: Model, texts: Sequence[str], pooling: Pooling = "mean", *, normalize: bool = True, bos: bool | None = None
) -> np.ndarray:
    """One vector for each text from its final hidden states: float32 [n_texts, n_embd].

    pooling: "mean" of the text's tokens (not of the <|endoftext|> before it, which is the same for every text), or its
    "last" token, the only one that has seen all of it. normalize: to length 1, so that products are cosines.
    A text's vector does not depend, to the bit, on the others. bos: as for `hidden_states`.
    Raises ValueError for another pooling and for a text that is longer than the context; TypeError for a text in place
    of the list.
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling is {pooling!r}; choose 'mean' or 'last'")
    ids = encode_batch(model, texts, bos, room=model.config.n_ctx)
    vectors = np.empty((len(ids), model.config.n_embd), np.float32)
    for number, states in enumerate(final_states(model, ids)):
        has_bos = len(states) > 1 and ids[number][0] == model.tokenizer.bos_id
        rows = states[-1:] if pooling == "last" else states[has_bos:]
        vectors[number] = ln_f(model.weights, rows).mean(axis=0, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalize else vectors


def final_states(model: Model, texts: list[list[int]]) -> Iterator[np.ndarray]:
    """The residual stream after the last block, float32 [n_tokens, n_embd], of one text after another."""
    parts = model.engine.hidden(texts, model.config.n_layer)
    rows = np.empty((0, model.config.n_embd), np.float32)
    for ids in texts:
        while len(rows) < len(ids):
            rows = np.concatenate((rows, next(parts)))
        yield rows[: len(ids)]
        rows = rows[len(ids) :]


def ln_f(weights: Weights, states: np.ndarray) -> np.ndarray:
    """The final LayerNorm of rows [n, n_embd]: the engine computes it together with the logits alone."""
    gain, bias = (weights.floats(f"ln_f.{part}")[: states.shape[1]] for part in ("weight", "bias"))
    centered = states - states.mean(axis=1, dtype=np.float64, keepdims=True)
    deviation = np.sqrt((centered**2).mean(axis=1, keepdims=True) + weights.config.layer_norm_epsilon)
    normed: np.ndarray = centered / deviation * gain + bias
    return normed.astype(np.float32)
