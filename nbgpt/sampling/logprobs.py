"""How likely the model found a token, before anything that was asked of the choice."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class TokenLogprob:
    """A token of a text with its log-probability: natural, by the model's own logits, as in OpenAI's completions.

    Temperature, penalties and truncations have no part in it.
    """

    token: int
    logprob: float | None  # None: nothing stands before it, or it was not read
    top: dict[int, float] = field(default_factory=dict)  # the likeliest ids in this place, the likeliest first
    bytes: bytes = b""  # none for an id that is no text, as those that pad a vocabulary
    text: str = ""  # what it completes; with the others' it makes the whole text


def measure(logits: np.ndarray, token: int, n_top: int) -> TokenLogprob:
    """The log-probability of a token and of the n_top likeliest, from logits float32 [n_vocab]."""
    top = logits.max()
    log_sum = float(top) + float(np.log(np.exp(logits - top).sum(dtype=np.float64)))
    n_top = min(n_top, len(logits))
    likeliest = np.argpartition(logits, -n_top)[-n_top:] if n_top else np.empty(0, np.int64)
    likeliest = likeliest[np.lexsort((likeliest, -logits[likeliest]))]
    return TokenLogprob(token, float(logits[token]) - log_sum, {int(i): float(logits[i]) - log_sum for i in likeliest})
