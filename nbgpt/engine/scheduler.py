"""Ids in, ids out: prompts are read, then each text grows by a token a step, all of them in one pass."""

from __future__ import annotations

import os
import time
from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from numbers import Integral, Real
from typing import Literal

import numpy as np

from ..abi.job import MAX_JOBS
from ..sampling.logprobs import TokenLogprob, measure
from ..sampling.params import SamplingParams
from ..sampling.sampler import Sampler
from ..validation import check
from .engine import MAX_LOGIT_ROWS, MAX_ROWS, Engine
from .kv_cache import Sequence
from .model_runner import Options
from .speculation import Speculation, in_common, verify

Overflow = Literal["error", "truncate_left", "keep_first"]
OVERFLOWS: tuple[Overflow, ...] = ("error", "truncate_left", "keep_first")
FinishReason = Literal["", "stop", "length", "time", "cancelled"]
DEFAULT_MAX_TOKENS = 200
BATCH_SIZE = 16
"""Texts that grow together; the rest wait until there is room. Each needs a cache of its own."""
BURST_SECONDS = 0.03
"""Tokens come in bursts of about so long: too short to be noticed, and long beside what the interpreter takes."""
LEAST_SHARED = 16
"""Ids that two texts must have in common to make it worth a pass of its own."""
_NO_LOGITS = np.empty(0, np.float32)


def random_seed() -> int:
    """A seed that nobody knows beforehand, short enough to be typed again."""
    return int.from_bytes(os.urandom(4), "little")


@dataclass
class Timing:
    """What a generation has cost so far, in tokens and seconds; those of a batch count the same seconds."""

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


class Window:
    """The part of a text that the model sees, and the sequence of the cache that holds all of it but the end.

    When the text outgrows the context, the first n_keep ids stay and of the rest the later half. Positions are learned,
    so keys cannot move: what is left is read anew. llama.cpp calls this context shift.
    """

    def __init__(self, ids: list[int], n_ctx: int, n_keep: int) -> None:
        self.ids = ids if len(ids) <= n_ctx else ids[:n_keep] + ids[n_keep - n_ctx :]
        self.sequence = Sequence()
        self.n_ctx, self._n_keep = n_ctx, n_keep

    def slide(self, model: Engine) -> bool:
        """Make the ids fit the context; True if some had to be forgotten."""
        if len(self.ids) <= self.n_ctx:
            return False
        model.free(self.sequence)
        self.ids = self.ids[: self._n_keep] + self.ids[-max(1, (self.n_ctx - self._n_keep) // 2) :]
        return True


@dataclass(eq=False)
class Generation:
    """One text that grows until something ends it. Iterate over it for its new ids, or let `run` grow several.

    stop_ids end the text and are no part of it. prefix: ids that the new text begins with, as if they had been chosen.
    max_time: seconds since `run` began. logprobs: None, or how many of the likeliest to note besides the chosen one,
    with echo for the prompt too. overflow: "error" refuses a text that will not fit the context, "truncate_left"
    forgets its beginning, "keep_first" forgets what follows the prompt, or the first quarter of the context if the
    prompt takes more than half of it.
    """

    model: Engine
    prompt: list[int]
    max_tokens: int
    sampling: SamplingParams
    stop_ids: frozenset[int] = frozenset()
    sample: int = 0
    overflow: Overflow = "error"
    prefix: list[int] = field(default_factory=list)
    max_time: float = inf
    logprobs: int | None = None
    echo: bool = False
    speculation: Speculation | None = None  # drafts ids, if only one text grows and compiled code draws them all

    finish_reason: FinishReason = field(default="", init=False)
    timing: Timing = field(default_factory=Timing, init=False)
    tokens: list[int] = field(init=False)  # the new ones, prefix first
    measured: list[TokenLogprob] = field(default_factory=list, init=False)  # of tokens; with echo, after the prompt's

    def __post_init__(self) -> None:
        """Raise ValueError that names the parameter, its value and what is allowed."""
        self._check()
        n_ctx, n_prompt = self.model.config.n_ctx, len(self.prompt)
        n_keep = 0 if self.overflow == "truncate_left" else n_prompt if 2 * n_prompt <= n_ctx else n_ctx // 4
        text = [*self.prompt, *self.prefix]
        self.tokens = list(self.prefix)
        self.window = Window(text.copy(), n_ctx, n_keep)
        self._text = array("i", text)
        self._chooser = Sampler(self.sampling, self.sample, n_prompt, self.stop_ids)
        self._cancelled = False
        self.statistics = self.speculation.statistics if self.speculation else None
        self.timing.prompt_tokens = len(self.window.ids)
        self.first_wanted = len(self.window.ids) - 1  # where in the window logits begin to be wanted
        if self.logprobs is not None:
            self._measure_given(text, n_keep)

    def _measure_given(self, text: list[int], n_keep: int) -> None:
        """Want the logits before each id of the prefix, with echo of the prompt too; of some ids there are none."""
        n_forgotten = len(text) - len(self.window.ids)
        start = 0 if self.echo else len(self.prompt)
        self.first_wanted = max(n_keep if n_forgotten else 0, start - 1 - n_forgotten)
        self.measured = [TokenLogprob(token, None) for token in text[start : n_forgotten + self.first_wanted + 1]]

    def _check(self) -> None:
        n_ctx, n_vocab, most = self.model.config.n_ctx, self.model.config.n_vocab, self.max_tokens
        if self.overflow not in OVERFLOWS:
            raise ValueError(f"overflow is {self.overflow!r}; choose {', '.join(map(repr, OVERFLOWS))}")
        if not self.prompt:
            raise ValueError("the prompt has no tokens; begin with the model's end of text")
        check("max_tokens", most, Integral, lambda n: n >= 1, "from 1 on")
        check("min_tokens", self.sampling.min_tokens, Integral, lambda n: n <= most, f"up to max_tokens, {most}")
        check("tokens of prefix", len(self.prefix), Integral, lambda n: n < most, f"below max_tokens, {most}")
        check("max_time", self.max_time, Real, lambda seconds: seconds > 0, "above 0 seconds")
        check("sample", self.sample, Integral, lambda n: 0 <= n < 1 << 64, "from 0 to 2^64 - 1")
        if self.logprobs is not None:
            check("logprobs", self.logprobs, Integral, lambda n: 0 <= n <= n_vocab, f"from 0 to {n_vocab}")
        self.sampling.check_ids(n_vocab)
        for token in self.stop_ids:
            check("token in stop", token, Integral, lambda n: 0 <= n < n_vocab, f"from 0 to {n_vocab - 1}")
        if self.overflow == "error" and len(self.prompt) + most > n_ctx:
            raise ValueError(
                f"prompt of {len(self.prompt)} tokens and {most} new ones make {len(self.prompt) + most}; this model's "
                f"context is {n_ctx}: shorten one of them or choose overflow 'truncate_left' or 'keep_first'"
            )

    def __iter__(self) -> Iterator[int]:
        n_seen = 0
        for _ in run(self.model, [self]):
            yield from self.tokens[n_seen:]
            n_seen = len(self.tokens)

    def release(self) -> None:
        """Give the pages of its past back."""
        self.model.free(self.window.sequence)
        if self.speculation:
            self.speculation.end()

    def cancel(self) -> None:
        """End it before the next pass. Any thread may ask for it."""
        self._cancelled = True

    def stop_after(self, n_tokens: int) -> None:
        """End it as if it had stopped after so many new tokens."""
        del self.measured[len(self.measured) - (len(self.tokens) - n_tokens) :]
        del self.tokens[n_tokens:]
        self.finish_reason = "stop"

    def end_early(self, seconds: float) -> bool:
        """End it if it was cancelled or has taken too long; True if it has ended, in whichever way."""
        if not self.finish_reason and (self._cancelled or seconds >= self.max_time):
            self.finish_reason = "cancelled" if self._cancelled else "time"
        return bool(self.finish_reason)

    def pending(self) -> range:
        """Places in the window that are still to be read."""
        if self.window.slide(self.model):
            self.speculation = None  # it knows the text by its places
            self.first_wanted = len(self.window.ids) - 1
        return range(self.window.sequence.length, len(self.window.ids))

    def options(self, place: int) -> Options | None:
        """What compiled code needs to draw what follows this place; None if it is known or needs the logits."""
        return self._chooser.options(len(self.tokens)) if place == len(self.window.ids) - 1 else None

    @property
    def is_drawn(self) -> bool:
        """Is one id to be read, and what follows it to be drawn by compiled code?"""
        is_plain = self.logprobs is None and self.options(len(self.window.ids) - 1) is not None
        return is_plain and len(self.pending()) == 1

    def turns(self) -> int:
        """How many tokens one call may add: several if compiled code draws them all, and none comes first."""
        seconds = self.timing.decode_seconds
        if not (self.is_drawn and seconds):
            return 1
        room = self.window.n_ctx - self.window.sequence.length
        at_once = int(BURST_SECONDS * (self.timing.new_tokens - 1) / seconds)
        return max(1, min(MAX_JOBS, at_once, room, self.max_tokens - len(self.tokens)))

    def draws(self, turns: int) -> list[Options]:
        """What compiled code needs to draw so many tokens."""
        n = len(self.tokens)
        return [self.sampling.options(self.sample, position) for position in range(n, n + turns)]

    def speculate(self) -> None:
        """Check a draft in one pass; or add a few tokens without, where none pays or there is no good guess."""
        assert self.speculation is not None
        start = time.perf_counter()
        ids, sequence = self.window.ids, self.window.sequence
        before = len(self.tokens) - len(ids)  # from a place in the window to the number of a new token

        def options(place: int) -> Options:
            return self.sampling.options(self.sample, place + before)

        most = min(self.max_tokens - len(self.tokens), self.window.n_ctx - sequence.length) - 1
        draft = self.speculation.draft(ids, most, options)
        if draft:
            drawn = verify(self.model, sequence, ids, draft, options)
            n_drawn = len(drawn)
            self.take_all(drawn)
        else:
            n_drawn = min(self.turns(), self.speculation.rest)
            _grow(self.model, [self], n_drawn)
        self.speculation.note(len(draft), n_drawn, time.perf_counter() - start)

    def take_all(self, drawn: list[int]) -> None:
        """Go on with ids that were drawn one after the other, as far as the text goes."""
        for token in drawn:
            self.take(len(self.window.ids) - 1, token, _NO_LOGITS)
            if self.finish_reason:
                self.model.truncate(self.window.sequence, len(self.window.ids))
                return

    def take(self, place: int, drawn: int | None, logits: np.ndarray) -> None:
        """Go on from a place that was read: with the id drawn after it, or by its logits float32 [n_vocab]."""
        ids = self.window.ids
        if place < len(ids) - 1:  # what follows was given
            self._measure(logits, ids[place + 1])
            return
        token = self._choose(logits) if drawn is None else drawn
        self.timing.new_tokens += 1
        if token in self.stop_ids:
            self.finish_reason = "stop"
            return
        self._measure(logits, token)
        self.tokens.append(token)
        ids.append(token)
        self._text.append(token)
        if len(self.tokens) == self.max_tokens:
            self.finish_reason = "length"

    def _choose(self, logits: np.ndarray) -> int:
        own = logits.copy() if self.logprobs is not None else logits
        return self._chooser.choose(np.array(self._text), own)

    def _measure(self, logits: np.ndarray, token: int) -> None:
        if self.logprobs is not None:
            self.measured.append(measure(logits, token, self.logprobs))


def run(
    model: Engine, generations: Iterable[Generation], batch_size: int = BATCH_SIZE
) -> Generator[list[Generation], None, None]:
    """Grow several texts, each by a token a step -> after each step those that grew or ended.

    Whoever asks for the steps may end a text between them by its `finish_reason`. A text's ids do not depend on its
    company. Those that wait take the places of those that end; neighbours that begin alike read their beginning once.
    """
    waiting, growing = deque(generations), list[Generation]()
    beginning = _Beginning(model)
    start = time.perf_counter()
    try:
        while waiting or growing:
            before = time.perf_counter()
            while waiting and len(growing) < batch_size:
                growing.append(waiting.popleft())
                beginning.give(growing[-1], waiting[0] if waiting else None)
            if alive := [one for one in growing if not one.end_early(before - start)]:
                _step(model, alive, before)
            yield growing
            for one in growing:
                if one.finish_reason:
                    one.release()
            growing = [one for one in growing if not one.finish_reason]
    finally:
        beginning.forget()
        for one in growing:
            one.release()


def _step(model: Engine, growing: list[Generation], start: float) -> None:
    """Read what each text has pending, and let each take what follows."""
    begun = [one.timing.new_tokens > 0 for one in growing]
    if len(growing) == 1 and growing[0].speculation and growing[0].is_drawn:
        growing[0].speculate()
    elif (turns := min(one.turns() for one in growing)) > 1:
        _grow(model, growing, turns)
    else:
        for part in _passes([(one, place) for one in growing for place in one.pending()]):
            if all(one.end_early(0) for one in growing):
                return
            _read(model, part)
    spent = time.perf_counter() - start
    for one, decodes in zip(growing, begun, strict=True):
        if decodes:
            one.timing.decode_seconds += spent
        else:
            one.timing.prefill_seconds += spent


def _grow(model: Engine, growing: list[Generation], turns: int) -> None:
    """Several tokens for each text in one call, so that the interpreter and its lock are away for less."""
    options = np.array([one.draws(turns) for one in growing])
    last = [one.window.ids[-1] for one in growing]
    drawn = model.grow([one.window.sequence for one in growing], last, options.swapaxes(0, 1))
    for one, ids in zip(growing, drawn.T.tolist(), strict=True):
        one.take_all(ids)


def _passes(rows: list[tuple[Generation, int]]) -> Iterator[list[tuple[Generation, int]]]:
    """Cut rows, each a place in a text's window, into what one pass has room for."""
    part: list[tuple[Generation, int]] = []
    n_wanted = 0
    for one, place in rows:
        is_wanted = place >= one.first_wanted
        if len(part) == MAX_ROWS or n_wanted + is_wanted > MAX_LOGIT_ROWS:
            yield part
            part, n_wanted = [], 0
        part.append((one, place))
        n_wanted += is_wanted
    yield part


def _read(model: Engine, rows: list[tuple[Generation, int]]) -> None:
    """One pass. Compiled code draws where it can; where it cannot, or to measure, logits are copied."""
    ids = [one.window.ids[place] for one, place in rows]
    sequences = [one.window.sequence for one, _ in rows]
    wanted = [(i, one.options(place)) for i, (one, place) in enumerate(rows) if place >= one.first_wanted]
    drawing = [(i, options) for i, options in wanted if options]
    wants = [i for i, _ in drawing] + [i for i, options in wanted if not options]
    kept = [at for at, i in enumerate(wants) if at >= len(drawing) or rows[i][0].logprobs is not None]
    drawn, logits = model.read(ids, sequences, wants, [options for _, options in drawing], kept)
    drawn_after = dict(zip(wants, drawn, strict=False))
    logits_after = dict(zip((wants[at] for at in kept), logits, strict=True))
    for i, _ in wanted:
        one, place = rows[i]
        one.take(place, drawn_after.get(i), logits_after.get(i, _NO_LOGITS))


class _Beginning:
    """What a text and the next one begin with: read once, and forked for each."""

    def __init__(self, model: Engine) -> None:
        self._model = model
        self._ids: list[int] = []
        self._sequence = Sequence()

    def give(self, one: Generation, following: Generation | None) -> None:
        """Let a text begin with as much as has been read, and read first what the following one can use too."""
        ids = one.window.ids[: one.first_wanted]
        if following is not None:
            shared = in_common(ids, following.window.ids[: following.first_wanted])
            if shared >= LEAST_SHARED and self._ids[:shared] != ids[:shared]:
                self.forget()
                self._ids = ids[:shared]
                for start in range(0, shared, MAX_ROWS):
                    part = self._ids[start : start + MAX_ROWS]
                    self._model.read(part, [self._sequence] * len(part), [])
        if (n := in_common(ids, self._ids)) >= LEAST_SHARED:
            one.window.sequence = self._model.fork(self._sequence, n)

    def forget(self) -> None:
        self._model.free(self._sequence)
        self._ids = []
