"""Log-probabilities of tokens by the model's own logits, before any sampling option."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .portable import exp_array, largest, log


@dataclass(frozen=True)
class TokenLogprob:
    """A token of a text with its natural log-probability by the model's own logits, as in OpenAI's completions.

    Temperature, penalties and truncations do not change it.
    """

    token: int
    logprob: float | None  # None: it is the first token, or was not read
    top: dict[int, float] = field(default_factory=dict)  # id -> logprob of the likeliest, in descending order
    bytes: bytes = b""  # b"" for an id without a token
    text: str = ""  # text that this token completes; joined, these are the whole text


def measure(logits: np.ndarray, token: int, n_top: int) -> TokenLogprob:
    """The log-probability of a token and of the n_top likeliest, from logits float32 [n_vocab]."""
    top = logits.max()
    log_sum = float(top) + log(exp_array(logits - top).sum(dtype=np.float64))
    likeliest = {i: float(logits[i]) - log_sum for i in largest(logits, n_top).tolist()}
    return TokenLogprob(token, float(logits[token]) - log_sum, likeliest)
