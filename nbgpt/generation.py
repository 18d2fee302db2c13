"""Ids in, ids out: prefill the prompt, then decode a token at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from .kv_cache import Sequence
from .model import GPT2
from .rng import uniform

Overflow = Literal["error", "truncate_left"]
DEFAULT_MAX_TOKENS = 200


def random_seed() -> int:
    """A seed that nobody knows beforehand, short enough to be typed again."""
    return int.from_bytes(os.urandom(4), "little")


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy; top_k 0 and top_p 1 keep every token.

    The order is temperature, top-k, top-p, as in transformers.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError that names the parameter, its value and what is allowed."""
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; it must be 0 (greedy) or more, and finite")
        if not 0 <= self.top_k < 1 << 31:
            raise ValueError(f"top_k is {self.top_k}; it must be from 0 (off) to 2^31 - 1")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1 (off)")
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed is {self.seed}; it must be from 0 to 2^64 - 1")

    def options(self, sample: int, position: int) -> tuple[float, float, float, float]:
        """What the sampling kernel reads for one position of one sample."""
        return self.temperature, self.top_k, self.top_p, uniform(self.seed, sample, position)


@dataclass
class Timing:
    """What a generation has cost so far, in tokens and seconds."""

    prompt_tokens: int = 0
    new_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def prefill_speed(self) -> float:
        """Tokens a second."""
        return self.prompt_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_speed(self) -> float:
        """Tokens a second; the first token comes with the prefill and does not count."""
        return (self.new_tokens - 1) / self.decode_seconds if self.decode_seconds else 0.0


@dataclass
class Generation:
    """Iterate over it for the new ids of one sample, which end before the model's end of text or at max_tokens."""

    model: GPT2
    prompt: list[int]
    max_tokens: int
    sampling: Sampling
    eos_id: int
    sample: int = 0
    overflow: Overflow = "error"
    finish_reason: Literal["stop", "length", ""] = ""
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        """Raise ValueError if the texts cannot fit the context."""
        n_ctx, wanted = self.model.config.n_ctx, len(self.prompt) + self.max_tokens
        if self.overflow not in ("error", "truncate_left"):
            raise ValueError(f"overflow is {self.overflow!r}; choose 'error' or 'truncate_left'")
        if not self.prompt:
            raise ValueError("the prompt has no tokens; begin with the model's end of text")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if self.overflow == "error" and wanted > n_ctx:
            raise ValueError(
                f"prompt of {len(self.prompt)} tokens and {self.max_tokens} new ones make {wanted}; this model's "
                f"context is {n_ctx}: shorten one of them or choose overflow 'truncate_left'"
            )

    def __iter__(self) -> Iterator[int]:
        sequence = Sequence()
        try:
            yield from self._run(sequence)
        finally:
            self.model.free(sequence)

    def _run(self, sequence: Sequence) -> Iterator[int]:
        n_ctx = self.model.config.n_ctx
        text = self.prompt[-n_ctx:]
        self.timing = Timing(prompt_tokens=len(text))
        pending = text
        for n in range(self.max_tokens):
            start = time.perf_counter()
            if sequence.length + len(pending) > n_ctx:
                self.model.free(sequence)
                pending = text = text[-max(1, n_ctx // 2) :]  # keys cannot move: the later half is read anew
            token = self.model.next_id(sequence, pending, self.sampling.options(self.sample, n))
            spent = time.perf_counter() - start
            if n == 0:
                self.timing.prefill_seconds = spent
            else:
                self.timing.decode_seconds += spent
            self.timing.new_tokens = n + 1
            if token == self.eos_id:
                self.finish_reason = "stop"
                return
            pending = [token]
            text.append(token)
            yield token
        self.finish_reason = "length"
