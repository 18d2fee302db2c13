"""Trace of a text through the model: heads, MLPs, the residual stream, LayerNorms, and each layer's predictions.

The engine runs one part of a layer at a time, each on the residual stream that the previous one returned, so that the
numbers have the bits of a whole pass, with every dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..config import GPT2Config
from ..engine.engine import Engine
from ..operations import layer_norm, softmax
from ..tokenizer import Tokenizer
from ..weights import Weights
from ..weights.matrices import block_matrix
from .notebook import summary
from .passes import attention_part, each_layer, run_parts

N_TOP = 10
"""Number of likeliest tokens that a trace keeps of each prediction."""
STATISTICS = ("norms", "added", "mean_before", "variance_before", "mean_after", "variance_after")
"""Arrays of a trace that have a number for each token at each point of the residual stream."""


@dataclass(frozen=True, eq=False)
class Trace:
    """Arrays that describe how a model read a text of n tokens.

    The residual stream is recorded at 2 n_layer + 1 points: point 0 follows the embedding, point 2 l + 1 the attention
    of layer l (from 0), point 2 l + 2 its MLP. Each point is read by one LayerNorm: ln_1 of layer p / 2 at an even
    point p, ln_2 of layer (p - 1) / 2 at an odd one, ln_f at the last.
    """

    config: GPT2Config
    weights: Weights  # of the model, also after it has been closed
    ids: np.ndarray  # int32 [n]
    texts: dict[int, str]  # text of every id in the trace; bytes that are not a whole character as \xNN
    stream: np.ndarray  # float32 [2 n_layer + 1, n, n_embd]: the residual stream at each point
    q: np.ndarray  # float32 [n_layer, n_head, n, head_dim]
    k: np.ndarray  # float32 [n_layer, n_head, n, head_dim], rounded as in the KV cache
    v: np.ndarray  # float32 [n_layer, n_head, n, head_dim], rounded as in the KV cache
    attended: np.ndarray  # float32 [n_layer, n_head, n, head_dim]: attention @ v, which attn.c_proj reads
    activations: np.ndarray  # float32 [n_layer, n, n_inner]: of the MLP, which mlp.c_proj reads
    lens_ids: np.ndarray  # int32 [n_layer + 1, n, k]: logit lens before each layer, likeliest first; [-1]: the model's
    lens_probabilities: np.ndarray  # float32 [n_layer + 1, n, k], decreasing along k
    log_sum_exp: np.ndarray  # float64 [n]: log of the sum of exp(logits); a logit is its token's logprob plus this
    nll: np.ndarray  # float64 [n]: -log p of each token after those before it, in nats; [0]: NaN
    ranks: np.ndarray  # int32 [n]: its place among the predictions, 1 for the likeliest; [0]: 0
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

    @property
    def surprisal(self) -> np.ndarray:
        """Surprise at each token in bits, float64 [n]; [0] is NaN."""
        bits: np.ndarray = self.nll / np.log(2)
        return bits

    @cached_property
    def attention(self) -> np.ndarray:
        """Attention weights, float32 [n_layer, n_head, n, n]: row i has those of token i, whose sum is 1."""
        return np.array([self.attention_of(layer) for layer in range(self.config.n_layer)])

    def attention_of(self, layer: int) -> np.ndarray:
        """Attention weights of a layer, softmax(scale q k.T): float32 [n_head, n, n]."""
        n = len(self.ids)
        scores = np.float32(self.config.attention_scale(layer)) * (self.q[layer] @ self.k[layer].transpose(0, 2, 1))
        scores[:, np.triu(np.ones((n, n), bool), k=1)] = -np.inf  # causal mask
        return softmax(scores)

    def head_outputs(self, layer: int) -> np.ndarray:
        """What each head of a layer adds to the residual stream, float32 [n_head, n, n_embd].

        Their sum plus the bias of attn.c_proj is what the attention adds, but for rounding.
        """
        rows = block_matrix(self.weights, layer, "attn.c_proj").reshape(self.config.n_head, -1, self.config.n_embd)
        outputs: np.ndarray = self.attended[layer] @ rows
        return outputs

    def _repr_html_(self) -> str:
        """A summary for notebooks."""
        ids, probabilities = self.lens_ids[-1, -1, :5].tolist(), self.lens_probabilities[-1, -1, :5].tolist()
        following = [(self.texts[token], probability) for token, probability in zip(ids, probabilities, strict=True)]
        return summary(self.tokens, self.surprisal, self.ranks, following)


def trace(engine: Engine, tokenizer: Tokenizer, ids: list[int]) -> Trace:
    """Read ids from an empty context and record each layer; other threads' passes may run between the layers.

    Costs one pass plus n_layer + 1 times the logits, and about 4 n n_layer (6 n_embd + n_inner) bytes.

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
    points, parts, lens = [run_parts(engine, ids, (0, 1))["x"]], [], []
    for layer in each_layer(config, "tracing"):
        lens.append(likeliest(_logits(engine, ids, points[-1])))
        seen, activations = _layer(engine, ids, layer, points)
        parts.append((*_heads(seen, config.n_head, engine.cache.dtype), activations))
    logits = _logits(engine, ids, points[-1])
    lens.append(likeliest(logits))
    lens_ids, lens_probabilities = (np.array(arrays) for arrays in zip(*lens, strict=True))
    names = ("q", "k", "v", "attended", "activations")
    return Trace(
        config=config,
        weights=engine.weights,
        ids=np.array(ids, np.int32),
        texts={token: token_text(tokenizer, token) for token in {*ids, *lens_ids.ravel().tolist()}},
        stream=np.array(points),
        **{name: np.array(layers) for name, layers in zip(names, zip(*parts, strict=True), strict=True)},
        lens_ids=lens_ids,
        lens_probabilities=lens_probabilities,
        **_surprise(logits, ids),
        **_all_statistics(engine, points),
    )


def _layer(
    engine: Engine, ids: list[int], layer: int, points: list[np.ndarray]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Run a layer, append the two points of the stream -> what its attention computed, the MLP's activations."""
    part = attention_part(layer)
    seen = run_parts(engine, ids, (part, part + 1), points[-1])
    points.append(seen["x"])
    mlp = run_parts(engine, ids, (part + 1, part + 2), points[-1])
    points.append(mlp["x"])
    return seen, mlp["inner"]


def _heads(seen: dict[str, np.ndarray], n_head: int, kv_dtype: str) -> tuple[np.ndarray, ...]:
    """`Trace.q` to `Trace.attended` of a layer: float32 [n_head, n, head_dim] each."""
    n = len(seen["qkv"])
    q, k, v = seen["qkv"].reshape(n, 3, n_head, -1).transpose(1, 2, 0, 3)
    k, v = (one.astype(kv_dtype).astype(np.float32) for one in (k, v))
    return q, k, v, seen["attended"].reshape(n, n_head, -1).transpose(1, 0, 2)


def _logits(engine: Engine, ids: list[int], stream: np.ndarray) -> np.ndarray:
    """LM head after ln_f, applied to a residual stream [n, n_embd]: float32 [n, n_vocab]."""
    head = (attention_part(engine.config.n_layer), engine.runner.n_parts)
    return run_parts(engine, ids, head, stream, range(len(ids)))["logits"]


def _surprise(logits: np.ndarray, ids: list[int]) -> dict[str, np.ndarray]:
    """`Trace.log_sum_exp`, `Trace.nll` and `Trace.ranks` from the model's logits [n, n_vocab]."""
    largest = logits.max(axis=1)
    sums = [np.exp(row - top, dtype=np.float64).sum() for row, top in zip(logits, largest, strict=True)]
    log_sum_exp = largest + np.log(sums)
    n = len(ids)
    own = logits[np.arange(n - 1), ids[1:]]
    nll, ranks = np.full(n, np.nan), np.zeros(n, np.int32)
    nll[1:] = log_sum_exp[:-1] - own
    ranks[1:] = 1 + (logits[:-1] > own[:, None]).sum(axis=1)
    return {"log_sum_exp": log_sum_exp, "nll": nll, "ranks": ranks}


def _all_statistics(engine: Engine, points: list[np.ndarray]) -> dict[str, np.ndarray]:
    """`Trace.norms` to `Trace.variance_after`, float32 [2 n_layer + 1, n] each."""
    names = [f"h.{layer}.{norm}" for layer in range(engine.config.n_layer) for norm in ("ln_1", "ln_2")]
    before = [np.zeros_like(points[0]), *points[:-1]]
    found = [_statistics(engine, *one) for one in zip([*names, "ln_f"], points, before, strict=True)]
    return dict(zip(STATISTICS, np.array(found, np.float32).swapaxes(0, 1), strict=True))


def _statistics(engine: Engine, norm: str, stream: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, ...]:
    """The STATISTICS at one point, float64 [n] each: float32 may overflow."""
    n_embd = engine.config.n_embd
    stream, before = stream.astype(np.float64), before.astype(np.float64)
    gain, bias = (engine.weights.floats(f"{norm}.{name}")[:n_embd] for name in ("weight", "bias"))
    normed = layer_norm(stream, gain, bias, engine.config.layer_norm_epsilon)
    lengths = (np.linalg.norm(array, axis=1) for array in (stream, stream - before))
    return *lengths, stream.mean(axis=1), stream.var(axis=1), normed.mean(axis=1), normed.var(axis=1)


def likeliest(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The N_TOP likeliest ids of logits [n, n_vocab], likeliest first: int32 [n, k]; their probabilities float32."""
    k = min(N_TOP, logits.shape[1])
    ids = np.argpartition(-logits, k - 1, axis=1)[:, :k]
    ids.sort(axis=1)
    order = np.argsort(-np.take_along_axis(logits, ids, axis=1), axis=1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=1)
    return ids.astype(np.int32), np.take_along_axis(softmax(logits), ids, axis=1)


def token_text(tokenizer: Tokenizer, token: int) -> str:
    r"""A token's text; bytes that are not a whole character as \xNN."""
    if token not in tokenizer:  # padding of the vocabulary
        return f"<{token}>"
    return tokenizer.decode_bytes((token,)).decode(errors="backslashreplace")
