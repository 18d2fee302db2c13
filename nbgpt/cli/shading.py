"""The pieces of a stream with the probability of each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..text.stream import Stream


def with_probabilities(stream: Stream) -> Iterator[tuple[str, float]]:
    """What each token of a stream says, and the model's probability of it. The stream must have log-probabilities."""
    at, said, logprob = 0, "", 0.0
    for piece in stream:
        while piece:
            while not said and at < len(stream.logprobs):  # several tokens may make one character
                one = stream.logprobs[at]
                said, logprob, at = one.text, logprob + (one.logprob or 0.0), at + 1
            part = piece[: len(said) or None]
            yield part, math.exp(logprob)
            piece, said = piece[len(part) :], said[len(part) :]
            if not said:
                logprob = 0.0
