"""A request: a prompt, what is asked of its continuation, and the ids that continue it so far."""

from __future__ import annotations

import os
import time
from array import array
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Literal

import numpy as np

from ..abi.job import MAX_JOBS
from ..config import GPT2Config
from ..sampling.logprobs import TokenLogprob, measure
from ..sampling.params import DrawParams, SamplingParams
from ..sampling.sampler import Sampler
from .kept_text import KeptText
from .speculation import Speculation
from .window import Window

FinishReason = Literal["", "stop", "length", "time", "cancelled"]
CALL_SECONDS = 0.03
"""A multi-step decode takes about so long: too short to be noticed, and long beside what the interpreter takes."""
NO_LOGITS = np.empty(0, np.float32)


class State(Enum):
    """Where a request is between `Scheduler.add` and its end."""

    WAITING = "waiting"  # for a place in the batch, or for memory
    RUNNING = "running"  # its prompt is read, or tokens follow it
    FINISHED = "finished"


def random_seed() -> int:
    """A seed that nobody knows beforehand, short enough to be typed again."""
    return int.from_bytes(os.urandom(4), "little")


@dataclass
class Timing:
    """What a request has cost so far, in tokens and seconds; requests of one batch count the same seconds."""

    prompt_tokens: int = 0  # that were read: those of a shared beginning are not
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


class Request:
    """One text that grows until something ends it: give it to `Engine.add`, then call `Engine.advance` for its ids.

    Its ids depend on the prompt and the parameters alone, not on other requests. A request that nobody holds any more
    leaves the scheduler by itself.
    """

    def __init__(
        self,
        config: GPT2Config,
        prompt: list[int],
        params: SamplingParams,
        *,
        absent_ids: np.ndarray | None = None,
        can_draw: bool = True,
        speculation: Speculation | None = None,
        kept: KeptText | None = None,
    ) -> None:
        """Take a prompt of one id or more.

        absent_ids: int64 [n], ids of the model that have no token, which are never chosen. can_draw: the kernels know
        them, see `ModelRunner.forbid`.
        speculation: drafts ids; used while the request is alone and the kernels draw its ids.
        kept: a text that the prompt may begin with, and where its pages go when the request ends.
        Raises ValueError that names the parameter, its value and what is allowed.
        """
        self.prompt, self.params = prompt, params
        self.speculation, self.kept = speculation, kept
        _check(config, prompt, params)
        n_ctx, n_prompt = config.n_ctx, len(prompt)
        n_keep = 0 if params.overflow == "truncate_left" else n_prompt if 2 * n_prompt <= n_ctx else n_ctx // 4
        text = [*prompt, *params.prefix]
        self.number = -1  # order of arrival
        self.state = State.WAITING
        self.finish_reason: FinishReason = ""
        self.error: Exception | None = None
        self.is_retired = False  # no longer in the scheduler
        self.last_asked = -inf  # when it last took part in a step: seconds of `time.monotonic`
        self.timing = Timing()
        self.tokens = list(params.prefix)  # the new ones, prefix first
        self.measured: list[TokenLogprob] = []  # of tokens; with echo, after the prompt's
        self.statistics = speculation.statistics if speculation else None
        self.window = Window(text.copy(), n_ctx, n_keep)
        self.first_wanted = len(self.window.ids) - 1  # first place in the window whose logits are needed
        self._text = array("i", text)
        self._sampler = Sampler(params, n_prompt, absent_ids)
        self._can_draw = can_draw
        self._started: float | None = None
        self.is_cancelled = False
        self.timing.prompt_tokens = len(self.window.ids)
        if params.logprobs is not None:
            self._measure_given(text, n_keep)

    def _measure_given(self, text: list[int], n_keep: int) -> None:
        """Ask for the logits before each id of the prefix, with echo of the prompt too; ids without logits get None."""
        n_dropped = len(text) - len(self.window.ids)
        start = 0 if self.params.echo else len(self.prompt)
        self.first_wanted = max(n_keep if n_dropped else 0, start - 1 - n_dropped)
        self.measured = [TokenLogprob(token, None) for token in text[start : n_dropped + self.first_wanted + 1]]

    def cancel(self) -> None:
        """End it before the next step. Any thread may ask for it."""
        self.is_cancelled = True

    def fail(self, error: Exception) -> None:
        """End it with an error, which whoever waits for it is told."""
        self.window.is_void = True
        self.error = error
        self.state = State.FINISHED

    def stop_after(self, n_tokens: int) -> None:
        """End it as if it had stopped after so many new tokens."""
        del self.measured[len(self.measured) - (len(self.tokens) - n_tokens) :]
        del self.tokens[n_tokens:]
        self.finish_reason = "stop"

    def end_early(self) -> bool:
        """End it if it was cancelled or has taken too long; True if it has ended, in whichever way."""
        if self._started is None:
            self._started = time.perf_counter()
        seconds = time.perf_counter() - self._started
        if not self.finish_reason and (self.is_cancelled or seconds >= self.params.max_time):
            self.finish_reason = "cancelled" if self.is_cancelled else "time"
        return bool(self.finish_reason or self.error)

    def put_back(self) -> None:
        """Note that its pages were taken away: it will be read again, but not measured again."""
        self.first_wanted = max(self.first_wanted, self.window.sequence.length)
        self.state = State.WAITING

    @property
    def has_begun(self) -> bool:
        """True once a pass has read a part of it."""
        return self.timing.prefill_seconds > 0

    @property
    def is_decoding(self) -> bool:
        """True if one id is to be read next: the prompt was read, or is a single id."""
        return self.window.n_pending == 1

    def draw_params(self, place: int) -> DrawParams | None:
        """What the kernels need to draw what follows a place of the window; None if the logits are needed instead."""
        is_last = place == len(self.window.ids) - 1
        return self.params.draw_params(len(self.tokens)) if is_last and self._is_plain else None

    @property
    def _is_plain(self) -> bool:
        """True if the kernels can draw the next token."""
        return self._can_draw and self._sampler.is_plain(len(self.tokens))

    @property
    def is_drawn_by_kernels(self) -> bool:
        """True if the next step is a single-token decode that is sampled inside the kernel."""
        is_unmeasured = self.params.logprobs is None and self._is_plain
        return is_unmeasured and self.is_decoding and len(self.window.ids) <= self.window.n_ctx

    def n_steps(self) -> int:
        """How many tokens one call of compiled code may add."""
        seconds = self.timing.decode_seconds
        if not (self.is_drawn_by_kernels and seconds):
            return 1
        room = self.window.n_ctx - self.window.sequence.length
        at_once = int(CALL_SECONDS * (self.timing.new_tokens - 1) / seconds)
        return max(1, min(MAX_JOBS, at_once, room, self.params.max_tokens - len(self.tokens)))

    def draws(self, n: int) -> list[DrawParams]:
        """What the kernels need to draw the next n tokens."""
        first = len(self.tokens)
        return [self.params.draw_params(position) for position in range(first, first + n)]

    def take_all(self, drawn: list[int]) -> None:
        """Go on with ids that were drawn one after the other, as far as the text goes."""
        for token in drawn:
            self.take(len(self.window.ids) - 1, token, NO_LOGITS)
            if self.finish_reason:
                return

    def take(self, place: int, drawn: int | None, logits: np.ndarray) -> None:
        """Go on from a place that was read: with the id drawn after it, or by its logits float32 [n_vocab]."""
        ids = self.window.ids
        if place < len(ids) - 1:  # what follows was given
            self._measure(logits, ids[place + 1])
            return
        token = self._choose(logits) if drawn is None else drawn
        self.timing.new_tokens += 1
        if token in self.params.stop_ids:
            self.finish_reason = "stop"
            return
        if self.params.logprobs is not None:
            self._measure(logits, token)
        self.tokens.append(token)
        ids.append(token)
        self._text.append(token)
        if len(self.tokens) == self.params.max_tokens:
            self.finish_reason = "length"

    def _choose(self, logits: np.ndarray) -> int:
        own = logits.copy() if self.params.logprobs is not None else logits
        return self._sampler.choose(np.array(self._text), own)

    def _measure(self, logits: np.ndarray, token: int) -> None:
        assert self.params.logprobs is not None
        self.measured.append(measure(logits, token, self.params.logprobs))


def _check(config: GPT2Config, prompt: list[int], params: SamplingParams) -> None:
    n_ctx, wanted = config.n_ctx, len(prompt) + params.max_tokens - 1  # the last token is not read
    if not prompt:
        raise ValueError("the prompt has no tokens; begin with the model's end of text")
    if not 0 <= min(prompt) <= max(prompt) < config.n_vocab:
        token = max(prompt) if min(prompt) >= 0 else min(prompt)
        raise ValueError(f"token {token} is not in 0..{config.n_vocab - 1}")
    params.check_vocabulary(config.n_vocab)
    if params.overflow == "error" and wanted > n_ctx:
        raise ValueError(
            f"prompt of {len(prompt)} tokens and {params.max_tokens} new ones need {wanted} positions; this model's "
            f"context is {n_ctx}: shorten one of them or choose overflow=truncate_left or keep_first"
        )
