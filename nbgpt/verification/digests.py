"""Digests of logits and of texts: 16 hexadecimal digits of a SHA-256 over their bits, little-endian."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend.kernel_cache import KernelError
from ..engine.engine import Engine
from ..engine.kv_cache import Sequence
from ..engine.model_runner import MAX_LOGIT_ROWS
from ..engine.request import Request
from ..sampling.params import SamplingParams
from .exact import whole_numbers

if TYPE_CHECKING:
    from ..model import Model

LENGTHS = (1, 70, 290)
"""Ids of the three texts whose logits are compared: less than a page of the cache, more than one, more than a span."""
_DRAWN = (
    SamplingParams(temperature=0),
    SamplingParams(temperature=0.8, top_k=40, seed=20),
    SamplingParams(temperature=1.2, top_k=0, typical_p=0.7, seed=21),  # drawn in Python
)


class VerificationError(KernelError):
    """The kernels compute other bits on this machine than they should."""


def digest(values: np.ndarray) -> str:
    """Of an array's bits."""
    return sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()[:16]


def digest_of_ids(texts: Iterable[list[int]]) -> str:
    """Of token ids, and of how many each text has."""
    return digest(np.array([number for text in texts for number in (len(text), *text)], np.int32))


def prompts_of(engine: Engine) -> list[list[int]]:
    """Ids of the three texts, as far as the model's context goes."""
    n_ctx, n_vocab = engine.config.n_ctx, engine.config.n_vocab
    return [whole_numbers(n, n, n_vocab)[:n_ctx].tolist() for n in LENGTHS]


def logits_digests(engine: Engine) -> list[str]:
    """Of each text's logits. Raises VerificationError if they are others in one pass with the other texts."""
    prompts = prompts_of(engine)
    alone = [digest(np.concatenate(list(engine.logits(ids)))) for ids in prompts]
    together = [digest(logits) for logits in _read_together(engine, prompts)]
    if alone != together:
        raise VerificationError(f"{engine.weights.dtype}: logits depend on what else is in the batch")
    return alone


def _read_together(engine: Engine, texts: list[list[int]]) -> list[np.ndarray]:
    """Logits [n, n_vocab] of each text; the next id of every text in turn, and as many in a pass as it takes."""
    sequences = [Sequence() for _ in texts]
    rows = [(step, text) for step in range(max(map(len, texts))) for text, ids in enumerate(texts) if step < len(ids)]
    logits: list[list[np.ndarray]] = [[] for _ in texts]
    try:
        for start in range(0, len(rows), MAX_LOGIT_ROWS):
            part = rows[start : start + MAX_LOGIT_ROWS]
            found = engine.logits_after([texts[text][step] for step, text in part], [sequences[i] for _, i in part])
            for (_, text), row in zip(part, found, strict=True):
                logits[text].append(row)
    finally:
        for sequence in sequences:
            engine.free(sequence)
    return [np.stack(own) for own in logits]


def texts_digest(engine: Engine) -> str:
    """Of what a model writes after a few ids: greedy, drawn by the kernels, and drawn in Python."""
    prompt = prompts_of(engine)[1][:16]
    requests = [Request(engine.config, prompt, replace(params, max_tokens=16)) for params in _DRAWN]
    return digest_of_ids(list(engine.tokens(request)) for request in requests)


def text_digest(model: Model, options: dict[str, Any]) -> str:
    """Of the ids of what `Model.generate` writes, and of the likeliest ids in their places."""
    found = model.generate(**options)
    completions = found if isinstance(found, list) else [found]
    likeliest = [list(token.top) for one in completions for token in one.logprobs or ()]
    return digest_of_ids([*(one.tokens for one in completions), *likeliest])
