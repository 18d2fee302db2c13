"""What may be asked of the choice of the next token: names, defaults and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import inf
from numbers import Integral, Real
from operator import index
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from ..validation import check
from .rng import uniform

LogitsProcessor = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From ids int32 [n] of the text so far and logits float32 [n_vocab], both its own to change, to logits."""
Overflow = Literal["error", "truncate_left", "keep_first"]
OVERFLOWS: tuple[Overflow, ...] = ("error", "truncate_left", "keep_first")
_LARGEST = 10**9
"""Of penalties and the like: far beyond any use, and few of them together still are numbers in float32."""


@runtime_checkable
class PerText(Protocol):
    """What makes a logits processor for each text, for those that must tell texts apart or know where they begin."""

    def for_text(self, n_given: int) -> LogitsProcessor:
        """The processor of one text, of which so many ids were given and not chosen."""


def _number(default: float, allowed: str, holds: Callable[[Any], bool]) -> Any:
    return field(default=default, metadata={"kind": Real, "holds": holds, "allowed": allowed})


def _whole(default: int, allowed: str, holds: Callable[[Any], bool]) -> Any:
    return field(default=default, metadata={"kind": Integral, "holds": holds, "allowed": allowed})


class DrawParams(NamedTuple):
    temperature: float
    top_k: float
    top_p: float
    uniform: float


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen, in terms of ids; the defaults of all but the first two change nothing.

    The options are applied in the order in which they stand in `Sampler`: see there, and processors.py for what each
    does. Raises ValueError that names the parameter, its value and what is allowed.
    """

    temperature: float = _number(0.8, "from 0 (greedy) to 10^9", lambda x: 0 <= x <= _LARGEST)
    top_k: int = _whole(40, "from 0 (off) to 2^31 - 1", lambda k: 0 <= k < 1 << 31)
    top_p: float = _number(1.0, "above 0 and at most 1 (off)", lambda p: 0 < p <= 1)
    seed: int = _whole(0, "from 0 to 2^64 - 1", lambda n: 0 <= n < 1 << 64)
    min_p: float = _number(0.0, "from 0 (off) to 1", lambda p: 0 <= p <= 1)
    typical_p: float = _number(1.0, "above 0 and at most 1 (off)", lambda p: 0 < p <= 1)
    epsilon_cutoff: float = _number(0.0, "from 0 (off) to less than 1", lambda p: 0 <= p < 1)
    eta_cutoff: float = _number(0.0, "from 0 (off) to less than 1", lambda p: 0 <= p < 1)
    mirostat_tau: float = _number(0.0, "from 0 (off) to 10^9 bits", lambda x: 0 <= x <= _LARGEST)
    mirostat_eta: float = _number(0.1, "from 0 to 10^9", lambda x: 0 <= x <= _LARGEST)
    repetition_penalty: float = _number(1.0, "from 10^-9 to 10^9, 1 for none", lambda x: 1 / _LARGEST <= x <= _LARGEST)
    presence_penalty: float = _number(0.0, "from -10^9 to 10^9, 0 for none", lambda x: abs(x) <= _LARGEST)
    frequency_penalty: float = _number(0.0, "from -10^9 to 10^9, 0 for none", lambda x: abs(x) <= _LARGEST)
    no_repeat_ngram_size: int = _whole(0, "of tokens, 0 for none", lambda n: n >= 0)
    dry_multiplier: float = _number(0.0, "from 0 (off) to 10^9", lambda x: 0 <= x <= _LARGEST)
    dry_base: float = _number(1.75, "from 1 to 10^9", lambda x: 1 <= x <= _LARGEST)
    dry_allowed_length: int = _whole(2, "from 1 on", lambda n: n >= 1)
    dry_sequence_breakers: frozenset[int] = frozenset()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: tuple[tuple[int, ...], ...] = ()
    min_tokens: int = _whole(0, "of tokens, 0 for none", lambda n: n >= 0)
    logits_processors: tuple[LogitsProcessor | PerText, ...] = ()
    max_tokens: int = 200
    stop_ids: frozenset[int] = frozenset()
    sample: int = 0
    overflow: Overflow = "error"
    prefix: tuple[int, ...] = ()
    max_time: float = inf
    logprobs: int | None = None
    echo: bool = False

    def __post_init__(self) -> None:
        for setting in fields(self):
            if setting.metadata:
                value = getattr(self, setting.name)
                check(setting.name, value, **setting.metadata)
                if setting.metadata["kind"] is Integral:  # one of NumPy's would overflow where Python's grow
                    object.__setattr__(self, setting.name, index(value))
        most = self.max_tokens
        if self.overflow not in OVERFLOWS:
            raise ValueError(f"overflow is {self.overflow!r}; choose {', '.join(map(repr, OVERFLOWS))}")
        check("max_tokens", most, Integral, lambda n: n >= 1, "from 1 on")
        check("min_tokens", self.min_tokens, Integral, lambda n: n <= most, f"up to max_tokens, {most}")
        check("tokens of prefix", len(self.prefix), Integral, lambda n: n < most, f"below max_tokens, {most}")
        check("max_time", self.max_time, Real, lambda seconds: seconds > 0, "above 0 seconds")
        check("sample", self.sample, Integral, lambda n: 0 <= n < 1 << 64, "from 0 to 2^64 - 1")
        check("logit_bias", self.logit_bias, Mapping, allowed="a mapping from token ids to what to add")
        for token, bias in self.logit_bias.items():
            allowed = "from -10^9 to 10^9, or -inf to ban the token"
            check(f"logit_bias of token {token}", bias, Real, lambda x: abs(x) <= _LARGEST or x == -inf, allowed)
        for word in self.bad_words:
            if not word:
                raise ValueError("bad_words has an empty one; each must have at least one token")
        for processor in self.logits_processors:
            if not callable(processor) and not isinstance(processor, PerText):
                raise ValueError(f"logits_processors has {processor!r}; each must be callable with ids and logits")

    def check_vocabulary(self, n_vocab: int) -> None:
        """Raise ValueError if an id is not in the model's vocabulary."""
        if self.logprobs is not None:
            check("logprobs", self.logprobs, Integral, lambda n: 0 <= n <= n_vocab, f"from 0 to {n_vocab}")
        for token in self.stop_ids:
            check("token in stop", token, Integral, lambda n: 0 <= n < n_vocab, f"from 0 to {n_vocab - 1}")
        named = {"logit_bias": self.logit_bias, "bad_words": [token for word in self.bad_words for token in word]}
        for name, ids in named.items():
            for token in ids:
                if not (isinstance(token, Integral) and 0 <= token < n_vocab):
                    raise ValueError(f"{name} has token {token!r}; it must be a whole number from 0 to {n_vocab - 1}")

    @cached_property
    def is_plain(self) -> bool:
        """Do temperature, top-k and top-p alone make the choice, once there are min_tokens?"""
        truncates = self.min_p or self.typical_p < 1 or self.epsilon_cutoff or self.eta_cutoff or self.mirostat_tau
        penalizes = self.repetition_penalty != 1 or self.presence_penalty or self.frequency_penalty
        forbids = self.no_repeat_ngram_size or self.dry_multiplier or self.logit_bias or self.bad_words
        return not (truncates or penalizes or forbids or self.logits_processors)

    def draw_params(self, position: int) -> DrawParams:
        """What the sampling kernel reads for one position of one sample; greedy choice asks for no random number."""
        chance = uniform(self.seed, self.sample, position) if self.temperature else 0.0
        return DrawParams(self.temperature, self.top_k, self.top_p, chance)
