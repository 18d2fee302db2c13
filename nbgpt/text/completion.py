"""Results of generation: texts, why they ended, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.request import Timing
from ..engine.speculation import Statistics
from ..sampling.logprobs import TokenLogprob


@dataclass(frozen=True)
class Usage:
    """Tokens of a completion."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Continuation:
    """What a search found; `str()` of it is the text."""

    text: str
    tokens: list[int]
    score: float | None  # of beam search: log-probability / length ** length_penalty
    finish_reason: str  # "stop": the model ended the text; "length": max_tokens were reached

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Completion:
    """What a model wrote; `str()` of it is the text.

    finish_reason: "stop": the model ended the text, or a stop string or id did; "length": max_tokens were reached;
    "time": max_time was over; "cancelled"; "": it is not finished.
    """

    text: str  # up to a stop string; with echo, after the prompt
    tokens: list[int]  # all that were chosen, those of a stop string too; with echo, after the prompt's
    finish_reason: str
    usage: Usage
    timing: Timing
    seed: int  # the text is made again with it
    logprobs: list[TokenLogprob] | None = None  # of tokens, one for one
    speculation: Statistics | None = None  # of drafts, if speculation was asked for

    def __str__(self) -> str:
        return self.text
