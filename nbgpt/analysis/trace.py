"""What each part of a model does to a text: attention, the residual stream, LayerNorms, and what each layer predicts.

The engine runs one layer at a time on the stream that the one before has left, so that the numbers are those of a
whole pass, whatever the type of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..config import GPT2Config
from ..engine.engine import MAX_LOGIT_ROWS, Engine
from ..engine.kv_cache import KVDtype, Sequence
from ..tokenizer import Tokenizer

N_TOP = 10
"""Likeliest tokens that a trace keeps of each prediction."""


@dataclass(frozen=True)
class Trace:
    """What a model did with a text of n tokens.

    The stream has 2 n_layer + 1 places: 0 is after the embedding, 2 l + 1 after the attention of layer l (from 0) and
    2 l + 2 after its feed-forward layer. The LayerNorm that reads place p is ln_1 of layer p / 2, ln_2 of layer
    (p - 1) / 2, or ln_f at the last place.
    """

    config: GPT2Config
    ids: np.ndarray  # int32 [n]
    texts: dict[int, str]  # of every id in the trace; bytes that are no whole character as \xNN
    attention: np.ndarray  # float32 [n_layer, n_head, n, n]: row i, how much token i takes from each; rows add up to 1
    lens_ids: np.ndarray  # int32 [n_layer + 1, n, k]: likeliest next tokens if no layer followed; [-1]: the model's
    lens_probabilities: np.ndarray  # float32 [n_layer + 1, n, k], falling along k
    norms: np.ndarray  # float32 [2 n_layer + 1, n]: Euclidean norm of the stream at each place
    added: np.ndarray  # float32 [2 n_layer + 1, n]: norm of what was added to get there; at 0, of the embedding
    mean_before: np.ndarray  # float32 [2 n_layer + 1, n]: over the channels that the LayerNorm of a place reads
    variance_before: np.ndarray  # float32 [2 n_layer + 1, n]
    mean_after: np.ndarray  # float32 [2 n_layer + 1, n]: and over those that it writes, its gain and bias included
    variance_after: np.ndarray  # float32 [2 n_layer + 1, n]

    @property
    def tokens(self) -> list[str]:
        """The text of each token."""
        return [self.texts[token] for token in self.ids.tolist()]


def trace(model: Engine, tokenizer: Tokenizer, ids: list[int]) -> Trace:
    """Read ids from an empty context and note what happens; other threads' passes may come between the layers.

    Takes one pass and the logits of n_layer + 1, and 4 n_layer n_head n^2 bytes for the attention.
    Raises ValueError for no ids, or more than the context has room for.
    Source of the lens: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    config = model.config
    if not 1 <= len(ids) <= config.n_ctx:
        raise ValueError(f"the text has {len(ids)} tokens; it must have from 1 to {config.n_ctx}, this model's context")
    attention, places, lens = [], [], []
    added = stream = _run(model, ids, (0, 0))["x"]
    for layer in range(config.n_layer):
        lens.append(_likeliest(_logits(model, ids, stream)))
        seen = _run(model, ids, (layer, layer + 1), stream)
        mlp = seen["projected"] + _vector(model, f"h.{layer}.mlp.c_proj.bias")
        middle = seen["x"].astype(np.float64) - mlp  # the stream between the halves, which the second one overwrote
        attention.append(_attention(seen["qkv"], config.n_head, config.attention_scale(layer), model.cache.dtype))
        places.append(_numbers(model, f"h.{layer}.ln_1", stream, added))
        places.append(_numbers(model, f"h.{layer}.ln_2", middle, middle - stream))
        stream, added = seen["x"], mlp
    lens.append(_likeliest(_logits(model, ids, stream)))
    places.append(_numbers(model, "ln_f", stream, added))
    lens_ids = np.array([likeliest for likeliest, _ in lens])
    return Trace(
        config,
        np.array(ids, np.int32),
        {token: _text(tokenizer, token) for token in {*ids, *lens_ids.ravel().tolist()}},
        np.array(attention),
        lens_ids,
        np.array([probabilities for _, probabilities in lens]),
        *np.array(places, np.float32).swapaxes(0, 1),
    )


def _run(
    model: Engine, ids: list[int], layers: tuple[int, int], stream: np.ndarray | None = None, logits: bool = False
) -> dict[str, np.ndarray]:
    """`Engine.run_part` over a whole text, part by part."""
    sequence, parts = Sequence(), []
    try:
        for start in range(0, len(ids), MAX_LOGIT_ROWS):
            rows = slice(start, start + MAX_LOGIT_ROWS)
            parts.append(model.run_part(sequence, ids[rows], layers, None if stream is None else stream[rows], logits))
    finally:
        model.free(sequence)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _logits(model: Engine, ids: list[int], stream: np.ndarray) -> np.ndarray:
    """What ln_f and the token matrix make of a stream [n, n_embd]: float32 [n, n_vocab]."""
    n_layer = model.config.n_layer
    return _run(model, ids, (n_layer, n_layer), stream, logits=True)["logits"]


def _vector(model: Engine, name: str) -> np.ndarray:
    """A tensor of the native file, float32 [n_embd]."""
    entry = model.weights.entries[name]
    padded: np.ndarray = model.weights.block[entry.start : entry.stop].view(np.float32)
    return padded[: model.config.n_embd]


def _attention(qkv: np.ndarray, n_head: int, scale: float, kv_dtype: KVDtype) -> np.ndarray:
    """Queries, keys and values [n, 3 n_embd] of a layer -> softmax(scale q k.T), float32 [n_head, n, n]."""
    n = len(qkv)
    q, k, _ = qkv.reshape(n, 3, n_head, -1).transpose(1, 2, 0, 3)  # [n_head, n, head_dim] each
    k = k.astype(kv_dtype).astype(np.float32)  # as they lie in the cache
    scores = np.float32(scale) * (q @ k.transpose(0, 2, 1))
    scores[:, np.triu(np.ones((n, n), bool), k=1)] = -np.inf  # nobody sees the future
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: np.ndarray = weights / weights.sum(axis=-1, keepdims=True)
    return result


def _numbers(model: Engine, norm: str, stream: np.ndarray, added: np.ndarray) -> tuple[np.ndarray, ...]:
    """What a `Trace` says of the place that a LayerNorm reads, in its order, float64 [n] each: float32 may overflow."""
    stream, added = stream.astype(np.float64), added.astype(np.float64)
    mean, variance = stream.mean(axis=1), stream.var(axis=1)
    normed = (stream - mean[:, None]) / np.sqrt(variance + model.config.layer_norm_epsilon)[:, None]
    normed = normed * _vector(model, f"{norm}.weight") + _vector(model, f"{norm}.bias")
    lengths = (np.linalg.norm(array, axis=1) for array in (stream, added))
    return *lengths, mean, variance, normed.mean(axis=1), normed.var(axis=1)


def _likeliest(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, n_vocab] -> the N_TOP likeliest ids, likeliest first, int32 [n, k], and their probabilities, float32."""
    k = min(N_TOP, logits.shape[1])
    ids = np.argpartition(-logits, k - 1, axis=1)[:, :k]
    ids.sort(axis=1)
    chosen = np.take_along_axis(logits, ids, axis=1)
    order = np.argsort(-chosen, axis=1, kind="stable")
    highest = chosen.max(axis=1, keepdims=True)
    total = np.exp(logits - highest).sum(axis=1, keepdims=True)
    probabilities = np.exp(np.take_along_axis(chosen, order, axis=1) - highest) / total
    return np.take_along_axis(ids, order, axis=1).astype(np.int32), probabilities


def _text(tokenizer: Tokenizer, token: int) -> str:
    if token not in tokenizer:  # some models pad their vocabulary
        return f"<{token}>"
    return tokenizer.decode_bytes((token,)).decode(errors="backslashreplace")
