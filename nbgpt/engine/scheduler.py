"""Continuous batching: requests join and leave between steps, and a step runs the model over rows of many of them.

A pass has one row for each request that decodes. The rest of its row budget goes to prompts, so that a long prompt does
not delay the texts that decode (chunked prefill). A row's logits do not depend on the other rows, so none of this
changes a bit of any text.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from weakref import ref

import numpy as np

from ..abi.layout import PAGE
from ..sampling.params import DrawParams
from .kept_text import KeptTexts
from .kv_cache import KVMemoryError, Sequence
from .model_runner import MAX_LOGIT_ROWS, ModelRunner
from .prefix_cache import LEAST_SHARED, PrefixCache, n_in_common
from .request import NO_LOGITS, Request, State
from .request_queue import RequestQueue
from .speculation import DrawParamsAt, verify
from .work import LEAST_READ, Work, row_budget

MAX_RUNNING = MAX_LOGIT_ROWS
"""Requests that run at once: one pass has room for the logits of all of them."""
PREFIX_CONTEXTS = 2
"""Size of the prefix cache, in contexts of n_ctx positions."""
INTERRUPTED = "the step that this text took part in was interrupted: begin it again"


class Scheduler:
    """Decides which rows of which requests the next pass reads, and whose pages go when memory is short.

    Nothing here takes a lock: `Engine` calls it under its own. It holds weak references to requests: when the caller
    drops one, the request leaves the scheduler and its pages are freed.
    """

    def __init__(self, runner: ModelRunner, max_running: int = MAX_RUNNING) -> None:
        self._runner, self._cache = runner, runner.cache
        me = ref(self)  # the cache must not keep the scheduler alive
        self._cache.reclaim = lambda: (scheduler := me()) is not None and scheduler._reclaim()
        n_pages = -(-runner.config.n_ctx // PAGE) * PREFIX_CONTEXTS
        self.prefix_cache = PrefixCache(runner.cache, min(n_pages, runner.cache.n_pages // 2))
        self.kept = KeptTexts(runner.cache)
        self.n_preemptions = self.n_prompt_tokens = self.n_cached_tokens = 0
        self.least_read = LEAST_READ  # rows for prompts in a step; more of them are quicker, and hold up who decodes
        self._max_running = max_running
        self._queue = RequestQueue()
        self._in_step: list[Request] = []  # requests of the step under way, for `fail_interrupted`
        self._drafting: Request | None = None  # the request whose drafter is running: it must keep its pages

    def add(self, request: Request) -> None:
        """Let a request take part in steps; any thread may call this.

        Raises ValueError if the request does not fit in the KV cache even alone.
        """
        n_tokens = min(len(request.prompt) + request.params.max_tokens - 1, request.window.n_ctx)
        wanted, limit = -(-n_tokens // PAGE), self._cache.n_pages
        if wanted > limit and limit:
            raise ValueError(
                f"{n_tokens} tokens take {wanted * self._cache.page_bytes} bytes of keys and values, kv_memory is "
                f"{limit * self._cache.page_bytes}: shorten the text or load the model with a larger kv_memory"
            )
        self._queue.add(request)

    def abort(self, request: Request) -> None:
        """End a request before the next step; any thread may call this."""
        request.cancel()

    def step(self, wanted: Iterable[Request] | None = None) -> list[Request]:
        """Run one step -> the requests that got ids, ended or failed; none if all must wait for other requests.

        wanted: the requests that take part; None: all requests. The others are paused. An error of one request ends it
        alone; an error of the pass ends all that take part, and is raised. A logits processor may run a step inside a
        step: the requests of the outer step are paused meanwhile.
        """
        start = time.perf_counter()
        for request in self._queue.welcome():
            if request.kept is not None:
                self.kept.add(request.kept)
        outer, running, work = self._in_step, list[Request](), None
        present = self._queue.present(wanted, outer)
        try:
            unended = [request for request in present if not request.end_early()]
            self._admit(unended)
            running = [request for request in unended if request.state is State.RUNNING]
            self._in_step = [*outer, *running]
            was_decoding = {request.number for request in running if request.timing.new_tokens}
            work = self._schedule(running, has_waiting=len(running) < len(unended))
            if work:
                work.take(work.run())
                work.note_time(time.perf_counter() - start, was_decoding)
            self._in_step = outer
        except BaseException as error:
            for request in running:
                request.fail(error if isinstance(error, Exception) else RuntimeError(INTERRUPTED))
            self._in_step = outer
            raise
        finally:
            self._queue.touch(present)
            for request in present:
                if request.finish_reason or request.error:
                    self.retire(request)
        grown = work.requests if work else []
        return [request for request in present if request in grown or request.state is State.FINISHED]

    def fail_interrupted(self) -> None:
        """End the requests that an interrupted step has left unfinished."""
        for request in self._in_step:
            if not request.is_retired:
                request.fail(RuntimeError(INTERRUPTED))
                self.retire(request)
        self._in_step = []

    def retire(self, request: Request) -> None:
        """Take a request out, whether it has ended or not, and give its pages back or leave them to its session."""
        request.state = State.FINISHED
        if request.is_retired:
            return
        request.is_retired = True
        self._queue.remove(request)
        if request.kept is not None and not request.error:
            request.kept.ended.append(request.window)
            self.kept.settle(request.kept)
        else:
            self._cache.truncate(request.window.sequence, 0)
        if request.speculation:
            request.speculation.end()

    # --- Who takes part -----------------------------------------------------------------------------------------------

    def _admit(self, wanted: list[Request]) -> None:
        """Let waiting requests run while there is room for them; none overtakes an older one that waits for memory."""
        active = [request for request in self._queue if self._queue.is_active(request)]
        running = [request for request in active if request.state is State.RUNNING]
        for request in active:
            if len(running) >= self._max_running:
                return
            if request.state is State.WAITING and not self._should_wait(request, running):
                sequence = self._cached_prefix(request)
                if not self._has_room(request, sequence, running):
                    return
                if request in wanted and self._begin(request, sequence):
                    running.append(request)

    def _should_wait(self, request: Request, running: list[Request]) -> bool:
        """True while a running request prefills a prefix of this prompt that the prefix cache does not hold yet."""
        ids = request.window.ids[: request.first_wanted]
        n_known = self.prefix_cache.n_known(ids)
        reading = [one for one in running if one.window.n_pending > 1 and not one.window.is_shifted]
        prompts = (one.window.ids[: one.first_wanted] for one in reading)
        return any(n_in_common(ids, prompt) >= n_known + LEAST_SHARED for prompt in prompts)

    def _cached_prefix(self, request: Request) -> Sequence:
        """A sequence with the longest prefix of a request that its session or the prefix cache holds."""
        ids, kept = request.window.ids[: request.first_wanted], request.kept
        if kept:
            self.kept.settle(kept)
            n_kept = n_in_common(kept.ids, ids)
            if n_kept >= self.prefix_cache.n_known(ids):
                return self.kept.fork(kept, n_kept)
        return self.prefix_cache.lend(ids)

    def _has_room(self, request: Request, sequence: Sequence, running: list[Request]) -> bool:
        """False if a request should wait until running requests free memory for it."""
        if not running:
            return True
        idle = [one.window.sequence for one in self._queue if one.state is State.RUNNING and one not in running]
        idle += self.prefix_cache.pages + self.kept.sequences
        n_available = self._cache.n_available + self._cache.n_held_only_by(idle)
        return self._cache.n_missing(sequence, len(request.window.ids)) <= n_available

    def _begin(self, request: Request, sequence: Sequence) -> bool:
        """Start a request that goes on from `sequence`; False if there is no memory for the rest of its prompt."""
        window, kept = request.window, request.kept
        window.sequence = sequence
        if kept:
            self.kept.shorten(kept, n_in_common(kept.ids, window.ids[: request.first_wanted]))
        if not self._reserve(request, window.n_pending, []):
            self._cache.truncate(sequence, 0)
            self._wait_or_fail([request])
            return False
        request.state = State.RUNNING
        if not request.has_begun:
            self.n_prompt_tokens += request.timing.prompt_tokens
            self.n_cached_tokens += sequence.length
            request.timing.prompt_tokens -= sequence.length
        return True

    # --- One step -----------------------------------------------------------------------------------------------------

    def _schedule(self, running: list[Request], has_waiting: bool) -> Work | None:
        """Choose what a step does: check a draft, decode several tokens of each text, or read rows in one pass."""
        for request in running:
            self._shift(request)
        if len(running) == 1 and running[0].speculation and running[0].is_drawn_by_kernels and not has_waiting:
            return self._speculate(running[0])
        is_crowded = has_waiting or self._queue.has_arrivals
        n_steps = 1 if is_crowded else min((request.n_steps() for request in running), default=1)
        if n_steps > 1 and all(self._reserve(request, n_steps, running) for request in running):
            return self._decode_steps(running, n_steps)
        return self._read(self._plan(running))

    def _shift(self, request: Request) -> None:
        """Shift the window of a text that has outgrown the context."""
        if request.window.shift():
            self._cache.truncate(request.window.sequence, 0)
            request.speculation = None  # drafters index the text by position, and all positions have changed
            request.first_wanted = len(request.window.ids) - 1

    def _plan(self, running: list[Request]) -> list[tuple[Request, int]]:
        """The rows of a pass, each as (request, index in its window): rows that decode come first, then prefill."""
        running = [request for request in running if request.state is State.RUNNING]
        decoding = [request for request in running if request.is_decoding]
        reading = [request for request in running if not request.is_decoding]
        budget = row_budget(len(decoding), len(reading), self.least_read)
        rows: list[tuple[Request, int]] = []
        planned: list[Request] = []
        n_logits = 0
        for request in [*decoding, *reading]:
            first = request.window.sequence.length
            unwanted = max(0, request.first_wanted - first)
            n = min(request.window.n_pending, budget - len(rows), unwanted + MAX_LOGIT_ROWS - n_logits)
            if request.state is State.RUNNING and n > 0 and self._reserve(request, n, planned):
                rows += [(request, place) for place in range(first, first + n)]
                planned.append(request)
                n_logits += max(0, n - unwanted)
        if not rows:
            self._wait_or_fail(running)
        return rows

    def _read(self, rows: list[tuple[Request, int]]) -> Work | None:
        """One pass. The kernels draw ids where they can; logits are copied where they cannot, and for logprobs."""
        if not rows:
            return None
        ids = [request.window.ids[place] for request, place in rows]
        sequences = [request.window.sequence for request, _ in rows]
        wanted = [(i, one.draw_params(place)) for i, (one, place) in enumerate(rows) if place >= one.first_wanted]
        drawing = [(i, params) for i, params in wanted if params]
        wants = [i for i, _ in drawing] + [i for i, params in wanted if not params]
        copied = [at for at, i in enumerate(wants) if at >= len(drawing) or rows[i][0].params.logprobs is not None]
        was_reading = {request for request, _ in rows if not request.is_decoding}

        def take(logits: np.ndarray) -> None:
            drawn_after = dict(zip(wants, self._runner.drawn.tolist(), strict=False))
            logits_after = dict(zip((wants[at] for at in copied), logits[copied], strict=True))
            for request in was_reading:
                if not request.window.n_pending and not request.window.is_shifted:
                    self.prefix_cache.put(request.window.ids, request.window.sequence)
            for i, _ in wanted:
                request, place = rows[i]
                if not request.error:
                    self._take(request, place, drawn_after.get(i), logits_after.get(i, NO_LOGITS))

        run = partial(self._runner.forward, ids, sequences, wants, [params for _, params in drawing])
        return Work(list(dict.fromkeys(request for request, _ in rows)), run, take)

    def _take(self, request: Request, place: int, drawn: int | None, logits: np.ndarray) -> None:
        try:
            request.take(place, drawn, logits)
        except Exception as error:  # a logits processor failed, or constraints allow no id: this ends one request only
            request.fail(error)

    def _decode_steps(self, running: list[Request], n: int) -> Work:
        """Multi-step decode: n tokens for each text in one call, which spreads the interpreter's overhead over them."""
        params = np.array([request.draws(n) for request in running])
        last = [request.window.ids[-1] for request in running]

        def take(drawn: np.ndarray) -> None:
            for request, ids in zip(running, drawn.T.tolist(), strict=True):
                request.take_all(ids)

        sequences = [one.window.sequence for one in running]
        return Work(running, partial(self._runner.decode_steps, sequences, last, params.swapaxes(0, 1)), take)

    def _speculate(self, request: Request) -> Work | None:
        """Verify a draft in one pass. Decode a few tokens plainly if a draft would not pay, or the drafter has none."""
        assert request.speculation is not None
        start = time.perf_counter()
        ids, sequence = request.window.ids, request.window.sequence
        offset = len(request.tokens) - len(ids)  # index in the window + offset = index in `request.tokens`
        room = min(request.params.max_tokens - len(request.tokens), request.window.n_ctx - sequence.length)

        def params(place: int) -> DrawParams:
            return request.params.draw_params(place + offset)

        draft = self._draft(request, room - 1, params)
        speculation = request.speculation
        if request.error:
            return None
        if not speculation:
            return self._read(self._plan([request]))
        if draft and self._reserve(request, len(draft) + 1, []):
            n_drafted = len(draft)
            work = Work([request], partial(verify, self._runner, sequence, ids, draft, params), request.take_all)
        else:
            n_drafted, wishes = 0, (max(1, min(request.n_steps(), speculation.rest)), 1)
            n_steps = next((n for n in wishes if self._reserve(request, n, [])), 0)
            if not n_steps:
                self._wait_or_fail([request])
                return None
            work = self._decode_steps([request], n_steps)

        def take(drawn: list[int] | np.ndarray) -> None:
            work.take(drawn)
            speculation.note(n_drafted, len(drawn), time.perf_counter() - start)

        return replace(work, take=take)

    def _draft(self, request: Request, most: int, params: DrawParamsAt) -> list[int]:
        """Guesses of the request's drafter; without memory for it, the request goes on without one."""
        assert request.speculation is not None
        self._drafting = request
        try:
            return request.speculation.draft(request.window.ids, most, params)
        except KVMemoryError:
            request.speculation.end()
            request.speculation = None
        except Exception as error:  # this ends one request only
            request.fail(error)
        finally:
            self._drafting = None
        return []

    # --- Memory -------------------------------------------------------------------------------------------------------

    def _reserve(self, request: Request, n: int, planned: list[Request]) -> bool:
        """Take pages for the next n positions of a request; False if too few can be freed.

        Frees pages that can be computed again, in this order: the prefix cache, idle sessions, paused requests, younger
        requests. Requests that are planned in this pass keep theirs, and so do active requests that are older.
        """
        sequence = request.window.sequence
        length = sequence.length + n
        while self._cache.n_missing(sequence, length) > self._cache.n_available:
            others = (one for one in self._queue if one is not request and one not in planned)
            victims = [one for one in others if one.number > request.number or not self._queue.is_active(one)]
            if not (self._drop_idle() or self._preempt(victims)):
                return False
        self._cache.extend(sequence, length)
        return True

    def _wait_or_fail(self, running: list[Request]) -> None:
        """No memory for any of these requests: fail the oldest, unless another active request will free some."""
        holding = [one for one in self._queue if one.state is State.RUNNING and one.window.sequence.pages]
        if running and not any(self._queue.is_active(one) and one not in running for one in holding):
            running[0].fail(
                KVMemoryError(
                    f"the KV cache of {self._cache.n_pages} pages is full of what cannot be dropped, and a page of "
                    f"{self._cache.page_bytes} bytes is wanted; end searches, or load the model with a larger kv_memory"
                )
            )

    def _reclaim(self) -> bool:
        """Free some pages for a call that is no request: a search, a score, a trace."""
        self._queue.touch([])
        return self._drop_idle() or self._preempt([one for one in self._queue if one is not self._drafting])

    def _drop_idle(self) -> bool:
        """Drop pages that are not in use: of the prefix cache first, then of the session used least recently."""
        return self.prefix_cache.drop_oldest() or self.kept.drop_oldest()

    def _preempt(self, victims: list[Request]) -> bool:
        """Preempt one of these: the one paused the longest, else the youngest. False if none of them has pages."""
        victims = [one for one in victims if one.state is State.RUNNING and one.window.sequence.pages]
        if not victims:
            return False
        paused = [one for one in victims if not self._queue.is_active(one)]
        victim = min(paused, key=lambda one: one.last_asked) if paused else max(victims, key=lambda one: one.number)
        victim.put_back()
        self._cache.truncate(victim.window.sequence, 0)
        if victim.speculation:
            victim.speculation.end()
        self.n_preemptions += 1
        return True
