"""Zero ablation: heads and MLPs are switched off at every position, and the predictions change.

The kernels run the rest of the pass on the stream that lacks what the part would have added.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from ..config import GPT2Config
from ..engine.engine import Engine
from ..operations import log_softmax
from ..tokenizer import Tokenizer
from ..weights.matrices import block_matrix
from .passes import attention_part, each_layer, each_pass, run_parts
from .trace import Trace, likeliest, token_text

Part = tuple[int, int]
"""(layer, head) of a head, (layer, n_head) of the MLP."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What is likely to come next in each of several cases."""

    ids: np.ndarray  # int32 [n_cases, k], likeliest first
    probabilities: np.ndarray  # float32 [n_cases, k]
    divergence: np.ndarray  # float64 [n_cases]: Kullback-Leibler divergence from the whole model's prediction, in bits
    texts: dict[int, str]  # of every id


def flop_of_all(config: GPT2Config, n_tokens: int) -> float:
    """About the floating-point operations of `ablate_each`."""
    n_parts, of_layer = config.n_layer * (config.n_head + 1), sum(a * b for a, b in config.matrices.values())
    return 2.0 * n_parts * (n_tokens * of_layer * config.n_layer / 2 + config.n_vocab * config.n_embd)


def ablate_each(engine: Engine, tokenizer: Tokenizer, trace: Trace) -> Predictions:
    """Predictions after the last token with one part off: head 0 of layer 0, ..., its MLP, head 0 of layer 1, ...

    See `flop_of_all` for what it costs.
    """
    whole = _rest(engine, trace, attention_part(trace.config.n_layer), trace.stream[-1])
    found = []
    for layer in each_layer(trace.config, "switching parts off"):
        middle = trace.stream[2 * layer + 1]
        without = [middle - output for output in trace.head_outputs(layer)]
        found += [_rest(engine, trace, attention_part(layer) + 1, stream) for stream in without]
        found.append(_rest(engine, trace, attention_part(layer + 1), middle))
    return _predictions(tokenizer, np.array(found), whole[None])


def ablate(engine: Engine, tokenizer: Tokenizer, trace: Trace, off: Collection[Part]) -> Predictions:
    """Predictions after every token with some parts off. Raises ValueError for a part that the model does not have."""
    read, rest, found, start = trace.ids.tolist(), attention_part(trace.config.n_layer), [], 0
    for without in ablated_logits(engine, trace, off):  # logits of a whole text would take gigabytes
        rows, wants = slice(start, start + len(without)), range(len(without))
        whole = run_parts(engine, read[rows], (rest, engine.runner.n_parts), trace.stream[-1][rows], wants)["logits"]
        found.append(_predictions(tokenizer, without, whole))
        start += len(without)
    texts = {token: text for one in found for token, text in one.texts.items()}
    ids, probabilities, divergence = (
        np.concatenate([getattr(one, name) for one in found]) for name in ("ids", "probabilities", "divergence")
    )
    return Predictions(ids, probabilities, divergence, texts)


def _predictions(tokenizer: Tokenizer, logits: np.ndarray, whole: np.ndarray) -> Predictions:
    """From logits [n_cases, n_vocab], and those of the whole model, which are for each case or for all."""
    ids, probabilities = likeliest(logits)
    expected, found = log_softmax(whole), log_softmax(logits)
    divergence = (np.exp(expected) * (expected - found)).sum(axis=1) / np.log(2)
    texts = {token: token_text(tokenizer, token) for token in set(ids.ravel().tolist())}
    return Predictions(ids, probabilities, divergence, texts)


def ablated_logits(engine: Engine, trace: Trace, off: Collection[Part]) -> Iterator[np.ndarray]:
    """Logits after every token with parts off: float32 [n, n_vocab], of a pass at a time.

    Raises ValueError for a part that the model does not have.
    """
    config, ids = trace.config, trace.ids.tolist()
    for layer, head in off:
        if not (0 <= layer < config.n_layer and 0 <= head <= config.n_head):
            raise ValueError(f"there is no part {head} in layer {layer}: heads are 0 to {config.n_head - 1}")
    layers = [layer for layer, _ in off]
    first, last = min(layers, default=config.n_layer), max(layers, default=config.n_layer - 1)
    stream = trace.stream[2 * first]
    for layer in range(first, last + 1):
        stream = _layer_without(engine, trace, layer, {head for other, head in off if other == layer}, stream)
    rest = (attention_part(last + 1), engine.runner.n_parts)
    for one in each_pass(engine, ids, rest, stream, range(len(ids))):
        yield one["logits"]


def _layer_without(engine: Engine, trace: Trace, layer: int, off: set[int], stream: np.ndarray) -> np.ndarray:
    """The residual stream after a layer some of whose parts are off."""
    config, ids, part = trace.config, trace.ids.tolist(), attention_part(layer)
    seen = run_parts(engine, ids, (part, part + 1), stream)
    stream = seen["x"]
    if heads := sorted(off - {config.n_head}):
        columns = np.concatenate([np.arange(config.head_dim) + head * config.head_dim for head in heads])
        stream = stream - seen["attended"][:, columns] @ block_matrix(trace.weights, layer, "attn.c_proj")[columns]
    if config.n_head in off:
        return stream
    return run_parts(engine, ids, (part + 1, part + 2), stream)["x"]


def _rest(engine: Engine, trace: Trace, part: int, stream: np.ndarray) -> np.ndarray:
    """Logits after the last token, float32 [n_vocab], if a stream goes into a part."""
    rest, last = (part, engine.runner.n_parts), len(trace.ids) - 1
    logits: np.ndarray = run_parts(engine, trace.ids.tolist(), rest, stream, [last])["logits"][0]
    return logits
