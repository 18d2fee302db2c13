"""Trace of a text through the model: attention, the residual stream, LayerNorms, and each layer's predictions.

The engine runs one layer at a time, each on the residual stream that the previous one returned, so that the numbers
have the bits of a whole pass, with every dtype.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..config import GPT2Config
from ..engine.engine import Engine
from ..engine.kv_cache import KVDtype, Sequence
from ..engine.model_runner import MAX_LOGIT_ROWS
from ..operations import layer_norm, softmax
from ..tokenizer import Tokenizer

N_TOP = 10
"""Number of likeliest tokens that a trace keeps of each prediction."""


@dataclass(frozen=True)
class Trace:
    """Arrays that describe how a model read a text of n tokens.

    The residual stream is recorded at 2 n_layer + 1 points: point 0 follows the embedding, point 2 l + 1 the attention
    of layer l (from 0), point 2 l + 2 its MLP. Each point is read by one LayerNorm: ln_1 of layer p / 2 at an even
    point p, ln_2 of layer (p - 1) / 2 at an odd one, ln_f at the last.
    """

    config: GPT2Config
    ids: np.ndarray  # int32 [n]
    texts: dict[int, str]  # text of every id in the trace; bytes that are not a whole character as \xNN
    attention: np.ndarray  # float32 [n_layer, n_head, n, n]: row i: the weights of token i; their sum is 1
    lens_ids: np.ndarray  # int32 [n_layer + 1, n, k]: logit lens before each layer, likeliest first; [-1]: the model's
    lens_probabilities: np.ndarray  # float32 [n_layer + 1, n, k], decreasing along k
    norms: np.ndarray  # float32 [2 n_layer + 1, n]: Euclidean norm of the residual stream at each point
    added: np.ndarray  # float32 [2 n_layer + 1, n]: norm of what was added since the point before; [0]: the embedding
    mean_before: np.ndarray  # float32 [2 n_layer + 1, n]: mean over channels of the LayerNorm's input at each point
    variance_before: np.ndarray  # float32 [2 n_layer + 1, n]: its variance
    mean_after: np.ndarray  # float32 [2 n_layer + 1, n]: mean of the LayerNorm's output, gain and bias included
    variance_after: np.ndarray  # float32 [2 n_layer + 1, n]: its variance

    @property
    def tokens(self) -> list[str]:
        """The text of each token."""
        return [self.texts[token] for token in self.ids.tolist()]


def trace(engine: Engine, tokenizer: Tokenizer, ids: list[int]) -> Trace:
    """Read ids from an empty context and record each layer; other threads' passes may run between the layers.

    Costs one pass plus n_layer + 1 times the logits, and 4 n_layer n_head n^2 bytes for the attention.

    Args:
        engine: runs the model.
        tokenizer: the model's tokenizer.
        ids: token ids, length n from 1 to n_ctx.

    Returns:
        The trace. Source of the logit lens: nostalgebraist 2020, "interpreting GPT: the logit lens".

    Raises:
        ValueError: there are no ids, or more than n_ctx.
    """
    config = engine.config
    if not 1 <= len(ids) <= config.n_ctx:
        raise ValueError(f"the text has {len(ids)} tokens; it must have from 1 to {config.n_ctx}, this model's context")
    attention, points, lens = [], [], []
    added = stream = _run(engine, ids, (0, 0))["x"]
    for layer in range(config.n_layer):
        lens.append(_likeliest(_logits(engine, ids, stream)))
        seen = _run(engine, ids, (layer, layer + 1), stream)
        mlp = seen["projected"] + _vector(engine, f"h.{layer}.mlp.c_proj.bias")
        middle = seen["x"].astype(np.float64) - mlp  # after attention, before the MLP, which overwrote it
        attention.append(_attention(seen["qkv"], config.n_head, config.attention_scale(layer), engine.cache.dtype))
        points.append(_statistics(engine, f"h.{layer}.ln_1", stream, added))
        points.append(_statistics(engine, f"h.{layer}.ln_2", middle, middle - stream))
        stream, added = seen["x"], mlp
    lens.append(_likeliest(_logits(engine, ids, stream)))
    points.append(_statistics(engine, "ln_f", stream, added))
    lens_ids = np.array([likeliest for likeliest, _ in lens])
    return Trace(
        config,
        np.array(ids, np.int32),
        {token: _text(tokenizer, token) for token in {*ids, *lens_ids.ravel().tolist()}},
        np.array(attention),
        lens_ids,
        np.array([probabilities for _, probabilities in lens]),
        *np.array(points, np.float32).swapaxes(0, 1),
    )


def _run(
    engine: Engine, ids: list[int], layers: tuple[int, int], stream: np.ndarray | None = None, logits: bool = False
) -> dict[str, np.ndarray]:
    """`ModelRunner.run_layers` over a whole text, MAX_LOGIT_ROWS rows a pass."""
    sequence, parts = Sequence(), []
    try:
        for start in range(0, len(ids), MAX_LOGIT_ROWS):
            rows = slice(start, start + MAX_LOGIT_ROWS)
            parts.append(
                engine.run_layers(
                    sequence,
                    ids[rows],
                    layers,
                    None if stream is None else stream[rows],
                    logits,
                )
            )
    finally:
        engine.free(sequence)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _logits(engine: Engine, ids: list[int], stream: np.ndarray) -> np.ndarray:
    """LM head after ln_f, applied to a residual stream [n, n_embd]: float32 [n, n_vocab]."""
    n_layer = engine.config.n_layer
    return _run(engine, ids, (n_layer, n_layer), stream, logits=True)["logits"]


def _vector(engine: Engine, name: str) -> np.ndarray:
    """A LayerNorm's gain or bias, or a bias of the MLP, without padding: float32 [n_embd]."""
    return engine.weights.floats(name)[: engine.config.n_embd]


def _attention(qkv: np.ndarray, n_head: int, scale: float, kv_dtype: KVDtype) -> np.ndarray:
    """Attention weights softmax(scale q k.T) from qkv [n, 3 n_embd] of a layer: float32 [n_head, n, n]."""
    n = len(qkv)
    q, k, _ = qkv.reshape(n, 3, n_head, -1).transpose(1, 2, 0, 3)  # [n_head, n, head_dim] each
    k = k.astype(kv_dtype).astype(np.float32)  # rounded as in the KV cache
    scores = np.float32(scale) * (q @ k.transpose(0, 2, 1))
    scores[:, np.triu(np.ones((n, n), bool), k=1)] = -np.inf  # causal mask
    return softmax(scores)


def _statistics(engine: Engine, norm: str, stream: np.ndarray, added: np.ndarray) -> tuple[np.ndarray, ...]:
    """`Trace.norms` to `Trace.variance_after` at one point, in that order, float64 [n] each: float32 may overflow."""
    stream, added = stream.astype(np.float64), added.astype(np.float64)
    gain, bias = _vector(engine, f"{norm}.weight"), _vector(engine, f"{norm}.bias")
    normed = layer_norm(stream, gain, bias, engine.config.layer_norm_epsilon)
    lengths = (np.linalg.norm(array, axis=1) for array in (stream, added))
    return *lengths, stream.mean(axis=1), stream.var(axis=1), normed.mean(axis=1), normed.var(axis=1)


def _likeliest(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The N_TOP likeliest ids of logits [n, n_vocab], likeliest first: int32 [n, k]; their probabilities float32."""
    k = min(N_TOP, logits.shape[1])
    ids = np.argpartition(-logits, k - 1, axis=1)[:, :k]
    ids.sort(axis=1)
    order = np.argsort(-np.take_along_axis(logits, ids, axis=1), axis=1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=1)
    return ids.astype(np.int32), np.take_along_axis(softmax(logits), ids, axis=1)


def _text(tokenizer: Tokenizer, token: int) -> str:
    if token not in tokenizer:  # padding of the vocabulary
        return f"<{token}>"
    return tokenizer.decode_bytes((token,)).decode(errors="backslashreplace")
