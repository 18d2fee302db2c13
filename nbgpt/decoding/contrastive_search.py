"""Contrastive search: of the k likeliest ids, prefers one whose state differs from the text's. Ids in, ids out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from numbers import Integral, Real

import numpy as np

from ..engine.engine import Engine
from ..engine.kv_cache import Sequence
from ..engine.model_runner import MAX_LOGIT_ROWS
from ..sampling.portable import largest, softmax
from ..validation import check


def contrastive_search(
    engine: Engine, ids: list[int], max_tokens: int, *, alpha: float, k: int, eos_ids: Collection[int] = ()
) -> Iterator[int]:
    """Ids that follow ids, one by one, until one of eos_ids, which is left out, or max_tokens.

    Each is the one of the k likeliest for which (1 - alpha) p(id) - alpha max_j cos(h(id), h_j) is largest, where h are
    the states after ln_f and j all tokens before it. alpha 0 or k 1 is greedy; the authors like 0.6 and 4. The k
    candidates are one pass over forks of the text.

    Source: Su et al. 2022, "A Contrastive Framework for Neural Text Generation", equation 5. Raises ValueError that
    names the parameter, its value and what is allowed.
    """
    engine.check_room(ids, max_tokens, reads_last=True)  # an id is chosen by what comes of reading it
    most = min(engine.config.n_vocab, MAX_LOGIT_ROWS)
    check("alpha", alpha, Real, lambda x: 0 <= x <= 1, "from 0 to 1")
    check("k", k, Integral, lambda n: 1 <= n <= most, f"from 1 to {most}")
    return _search(engine, ids, max_tokens, alpha, k, eos_ids)


def _search(
    engine: Engine, ids: list[int], max_tokens: int, alpha: float, k: int, eos_ids: Collection[int]
) -> Iterator[int]:
    states = np.empty((len(ids) + max_tokens, engine.config.n_embd), np.float32)  # of the text, as unit vectors
    texts = [Sequence()]
    try:
        logits = _read(engine, texts[0], ids, states)
        for length in range(len(ids), len(ids) + max_tokens):
            logits[engine.absent_ids] = -np.inf
            candidates, p = _likeliest(logits, k)
            texts += [engine.fork(texts[0], length) for _ in candidates[1:]]
            logits_after, states_after = engine.outputs(candidates, texts, range(len(candidates)))
            directions = _unit(states_after)
            degeneration = np.array([_largest_cosine(direction, states[:length]) for direction in directions])
            best = int(((1 - alpha) * p - alpha * degeneration).argmax())
            texts[0], texts[best] = texts[best], texts[0]
            while len(texts) > 1:
                engine.free(texts.pop())
            if candidates[best] in eos_ids:
                return
            yield candidates[best]
            logits, states[length] = logits_after[best], directions[best]
    finally:
        for text in texts:
            engine.free(text)


def _read(engine: Engine, text: Sequence, ids: list[int], states: np.ndarray) -> np.ndarray:
    """Read the prompt and store its states -> logits float32 [n_vocab] after it."""
    for start in range(0, len(ids), MAX_LOGIT_ROWS):
        part = ids[start : start + MAX_LOGIT_ROWS]
        logits, rows = engine.outputs(part, [text] * len(part), range(len(part)))
        states[start : start + len(part)] = _unit(rows)
    last: np.ndarray = logits[-1]
    return last


def _likeliest(logits: np.ndarray, k: int) -> tuple[list[int], np.ndarray]:
    """The k likeliest ids, likeliest first, and their probabilities float32 [k] among all ids; none that is banned."""
    ids = largest(logits, k)
    ids = ids[logits[ids] > -np.inf]
    return ids.tolist(), softmax(logits)[ids]


def _largest_cosine(direction: np.ndarray, states: np.ndarray) -> np.float32:
    """Of a unit vector [n_embd] with others [n, n_embd]; not by a matrix product, see sampling/portable.py."""
    largest: np.float32 = (states * direction).sum(axis=1).max()
    return largest


def _unit(states: np.ndarray) -> np.ndarray:  # [n, n_embd] -> [n, n_embd]
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    directions: np.ndarray = states / np.maximum(lengths, np.finfo(np.float32).tiny)
    return directions
