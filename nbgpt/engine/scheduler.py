"""Continuous batching: requests join and leave between steps, and each step is one pass over rows of many of them.

A step reads one id of every text that is being continued, and fills what is left of its budget of rows with prompts
that are being read, so that a long prompt holds nobody up (chunked prefill). A row's logits do not depend on the other
rows, so none of this changes a bit of any text.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from weakref import WeakSet, WeakValueDictionary, ref

import numpy as np

from ..abi.layout import PAGE
from .kv_cache import KVMemoryError
from .model_runner import MAX_LOGIT_ROWS, MAX_ROWS, ModelRunner
from .prefix_cache import LEAST_SHARED, PrefixCache, n_in_common
from .request import NO_LOGITS, KeptText, Request, State
from .speculation import verify

MAX_RUNNING = MAX_LOGIT_ROWS
"""Requests that run at once: one pass has room for the logits of all of them."""
ROW_BUDGET = 48
"""Rows of a step in which texts are continued while prompts are read: see bench/NOTES.md."""
PREFIX_CONTEXTS = 2
"""Pages of the prefix cache, in whole contexts."""


class Scheduler:
    """Decides which rows of which requests the next pass reads, and whose pages go when memory is short.

    Nothing here takes a lock: `Engine` calls it under its own. Requests are not kept alive: one that nobody holds any
    more is gone, and so are its pages.
    """

    def __init__(self, runner: ModelRunner, max_running: int = MAX_RUNNING) -> None:
        self._runner, self._cache = runner, runner.cache
        me = ref(self)  # the cache must not keep the scheduler alive
        self._cache.reclaim = lambda: (scheduler := me()) is not None and scheduler._reclaim()
        n_pages = -(-runner.config.n_ctx // PAGE) * PREFIX_CONTEXTS
        self.prefix_cache = PrefixCache(runner.cache, min(n_pages, runner.cache.n_pages // 2))
        self.kept: WeakSet[KeptText] = WeakSet()
        self.n_preemptions = 0
        self._max_running = max_running
        self._arrivals: deque[ref[Request]] = deque()
        self._requests: WeakValueDictionary[int, Request] = WeakValueDictionary()  # by order of arrival
        self._n_arrived = 0

    def add(self, request: Request) -> None:
        """Let a request take part in steps; any thread may call this.

        Raises ValueError if the KV cache has not enough memory for it, whoever else leaves.
        """
        n_tokens = min(len(request.window.ids) + request.params.max_tokens - 1, request.window.n_ctx)
        wanted, limit = -(-n_tokens // PAGE), self._cache.n_pages
        if wanted > limit and limit:
            raise ValueError(
                f"{n_tokens} tokens take {wanted * self._cache.page_bytes} bytes of keys and values, kv_memory is "
                f"{limit * self._cache.page_bytes}: shorten the text or load the model with a larger kv_memory"
            )
        self._arrivals.append(ref(request))

    def abort(self, request: Request) -> None:
        """End a request before the next step; any thread may call this."""
        request.cancel()

    def step(self, wanted: Iterable[Request] | None = None) -> list[Request]:
        """Let requests grow by a step -> those that grew, ended or failed.

        wanted: the requests that take part, and None all; the others are paused. An error of one request ends it alone;
        an error of the pass ends all that take part, and is raised.
        """
        start = time.perf_counter()
        self._welcome()
        alive = self._alive() if wanted is None else [one for one in wanted if one.state is not State.FINISHED]
        alive.sort(key=lambda request: request.number)
        going_on = [request for request in alive if not request.end_early()]
        self._admit(going_on)
        running = [request for request in going_on if request.state is State.RUNNING]
        try:
            if running:
                self._advance(running, has_waiting=len(running) < len(going_on), start=start)
        except BaseException as error:
            for request in running:
                request.fail(error if isinstance(error, Exception) else RuntimeError("interrupted in a step"))
            raise
        finally:
            for request in alive:
                if request.finish_reason or request.error:
                    self.retire(request)
        return alive

    def retire(self, request: Request) -> None:
        """Take a request out, whether it has ended or not, and give its pages back or leave them to its session."""
        request.state = State.FINISHED
        if request.is_retired:
            return
        request.is_retired = True
        self._requests.pop(request.number, None)
        if request.kept is not None and not request.error:
            request.kept.ended.append(request.window)
            self.settle(request.kept)
        else:
            self._cache.truncate(request.window.sequence, 0)
        if request.speculation:
            request.speculation.end()

    def settle(self, kept: KeptText) -> None:
        """Let a session's text be what the request that ended last has read; its pages are the session's now."""
        while kept.ended:
            window = kept.ended.popleft()
            if window.sequence is kept.sequence or not window.sequence.length:  # settled before, or never begun
                continue
            self._cache.truncate(window.sequence, 0 if kept.is_dropped else len(window.ids))
            self._cache.truncate(kept.sequence, 0)
            kept.ids, kept.sequence = window.ids[: window.sequence.length], window.sequence
            kept.last_used = time.monotonic()

    # --- Who takes part -----------------------------------------------------------------------------------------------

    def _welcome(self) -> None:
        while self._arrivals:
            request = self._arrivals.popleft()()
            if request is not None:
                request.number = self._n_arrived
                if request.kept is not None:
                    self.kept.add(request.kept)
                self._requests[request.number] = request
                self._n_arrived += 1

    def _alive(self) -> list[Request]:
        return list(self._requests.values())

    def _admit(self, requests: list[Request]) -> None:
        """Let waiting requests run while there is room for them, the oldest first."""
        running = [request for request in requests if request.state is State.RUNNING]
        for request in requests:
            if len(running) == self._max_running:
                return
            if request.state is State.WAITING and not self._should_wait(request, running):
                self._begin(request)
                running.append(request)

    def _should_wait(self, request: Request, running: list[Request]) -> bool:
        """True while there is no memory for the prompt, or another request is reading what it begins with."""
        if not running:
            return False
        ids = request.window.ids[: request.first_wanted]
        n_known = self.prefix_cache.n_known(ids)
        for other in running:
            if not other.is_decoding:
                prompt = other.window.ids[: other.first_wanted]
                if n_in_common(ids, prompt) >= n_known + LEAST_SHARED:
                    return True
        n_missing = -(-(len(request.window.ids) - n_known) // PAGE)
        return n_missing > self._cache.n_available + self._n_reclaimable(running)

    def _n_reclaimable(self, running: list[Request]) -> int:
        """Pages that can be had without taking them from a request that runs."""
        paused = [one for one in self._alive() if one not in running and one.state is State.RUNNING]
        sequences = [one.window.sequence for one in paused] + [kept.sequence for kept in self.kept]
        return self.prefix_cache.n_idle + sum(len(sequence.pages) for sequence in sequences)

    def _begin(self, request: Request) -> None:
        """Give a request the pages that hold the beginning of its prompt already."""
        request.state = State.RUNNING
        window, first = request.window, request.first_wanted
        if window.is_shifted and window.sequence.length:
            return
        ids, kept = window.ids[:first], request.kept
        if kept:
            self.settle(kept)
        n_kept = n_in_common(kept.ids, ids) if kept else 0
        if kept and n_kept >= self.prefix_cache.n_known(ids):
            window.sequence = self._cache.fork(kept.sequence, n_kept)
            self._cache.truncate(kept.sequence, n_kept)
            del kept.ids[n_kept:]
        else:
            window.sequence = self.prefix_cache.lend(ids)
        if not request.timing.new_tokens and not request.timing.prefill_seconds:
            request.timing.prompt_tokens -= window.sequence.length

    # --- One step -----------------------------------------------------------------------------------------------------

    def _advance(self, running: list[Request], has_waiting: bool, start: float) -> None:
        for request in running:
            self._shift(request)
        grown = running
        was_decoding = {request.number for request in running if request.timing.new_tokens}
        n_steps = 1 if has_waiting or self._arrivals else min(request.n_steps() for request in running)
        if len(running) == 1 and running[0].speculation and running[0].is_drawn_by_kernels and not has_waiting:
            self._speculate(running[0])
        elif n_steps > 1 and all(self._reserve(request, n_steps, running) for request in running):
            self._decode_steps(running, n_steps)
        else:
            rows = self._plan([request for request in running if request.state is State.RUNNING])
            grown = list(dict.fromkeys(request for request, _ in rows))
            self._read(rows)
        spent = time.perf_counter() - start
        for request in grown:
            if request.number in was_decoding:
                request.timing.decode_seconds += spent
            else:
                request.timing.prefill_seconds += spent

    def _shift(self, request: Request) -> None:
        """Shift the window of a text that has outgrown the context."""
        if request.window.shift():
            self._cache.truncate(request.window.sequence, 0)
            request.speculation = None  # it knows the text by its places
            request.first_wanted = len(request.window.ids) - 1

    def _plan(self, running: list[Request]) -> list[tuple[Request, int]]:
        """The rows of a pass, each a place in a request's window: texts that are continued first, then prompts.

        Raises KVMemoryError if there is no memory for any row.
        """
        decoding = [request for request in running if request.is_decoding]
        reading = [request for request in running if not request.is_decoding]
        budget = max(ROW_BUDGET, len(decoding)) if decoding else MAX_ROWS
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
            raise KVMemoryError(
                f"the KV cache of {self._cache.n_pages} pages is full of what cannot be dropped; close sessions and "
                "searches, or load the model with a larger kv_memory"
            )
        return rows

    def _read(self, rows: list[tuple[Request, int]]) -> None:
        """One pass. The kernels draw where they can; where they cannot, or to measure, logits are copied."""
        ids = [request.window.ids[place] for request, place in rows]
        sequences = [request.window.sequence for request, _ in rows]
        wanted = [(i, one.draw_params(place)) for i, (one, place) in enumerate(rows) if place >= one.first_wanted]
        drawing = [(i, params) for i, params in wanted if params]
        wants = [i for i, _ in drawing] + [i for i, params in wanted if not params]
        copied = [at for at, i in enumerate(wants) if at >= len(drawing) or rows[i][0].params.logprobs is not None]
        was_reading = {request for request, _ in rows if not request.is_decoding}
        drawn, logits = self._runner.read(ids, sequences, wants, [params for _, params in drawing], copied)
        for request in was_reading:
            if not request.window.n_pending and not request.window.is_shifted:
                self.prefix_cache.put(request.window.ids, request.window.sequence)
        drawn_after = dict(zip(wants, drawn, strict=False))
        logits_after = dict(zip((wants[at] for at in copied), logits, strict=True))
        for i, _ in wanted:
            request, place = rows[i]
            if not request.error:
                self._take(request, place, drawn_after.get(i), logits_after.get(i, NO_LOGITS))

    def _take(self, request: Request, place: int, drawn: int | None, logits: np.ndarray) -> None:
        try:
            request.take(place, drawn, logits)
        except Exception as error:  # of a logits processor, or of constraints that leave nothing: this text's alone
            request.fail(error)

    def _decode_steps(self, running: list[Request], n: int) -> None:
        """Multi-step decode: n tokens for each text in one call, so that the interpreter is away for less."""
        params = np.array([request.draws(n) for request in running])
        last = [request.window.ids[-1] for request in running]
        drawn = self._runner.decode_steps([one.window.sequence for one in running], last, params.swapaxes(0, 1))
        for request, ids in zip(running, drawn.T.tolist(), strict=True):
            request.take_all(ids)

    def _speculate(self, request: Request) -> None:
        """Check a draft in one pass; or add a few tokens without, where none pays or there is no good guess."""
        assert request.speculation is not None
        start = time.perf_counter()
        ids, sequence = request.window.ids, request.window.sequence
        before = len(request.tokens) - len(ids)  # from a place in the window to the number of a new token
        room = min(request.params.max_tokens - len(request.tokens), request.window.n_ctx - sequence.length)
        draft = request.speculation.draft(ids, room - 1, lambda place: request.params.draw_params(place + before))
        if draft and self._reserve(request, len(draft) + 1, []):
            drawn = verify(self._runner, sequence, ids, draft, lambda place: request.params.draw_params(place + before))
            n_drawn = len(drawn)
            request.take_all(drawn)
        else:
            draft, n_drawn = [], max(1, min(request.n_steps(), request.speculation.rest))
            if not self._reserve(request, n_drawn, []):
                n_drawn = 1
            self._decode_steps([request], n_drawn)
        request.speculation.note(len(draft), n_drawn, time.perf_counter() - start)

    # --- Memory -------------------------------------------------------------------------------------------------------

    def _reserve(self, request: Request, n: int, planned: list[Request]) -> bool:
        """Pages for the next n positions of a request; False if only requests before it could give them.

        Taken from what can be read again: prompts of the past, idle sessions, paused requests, and younger requests
        that are not planned in this pass.
        """
        sequence = request.window.sequence
        length = sequence.length + n
        victims = [one for one in self._alive() if one not in planned and one.number > request.number]
        while self._cache.n_missing(sequence, length) > self._cache.n_available:
            if not (self._drop_idle() or self._preempt(victims)):
                return False
        self._cache.extend(sequence, length)
        return True

    def _reclaim(self) -> bool:
        """Let go of some pages for a call that is no request: a search, a score, a trace."""
        return self._drop_idle() or self._preempt(self._alive())

    def _drop_idle(self) -> bool:
        """Drop pages that nobody uses now: of the prefix cache, then of the session that was used least recently."""
        if self.prefix_cache.drop_oldest():
            return True
        idle = [kept for kept in self.kept if kept.sequence.pages]
        if not idle:
            return False
        kept = min(idle, key=lambda kept: kept.last_used)
        self._cache.truncate(kept.sequence, 0)
        kept.ids = []
        return True

    def _preempt(self, victims: list[Request]) -> bool:
        """Take the pages of the youngest request that has some; its text is read again later, and is the same."""
        victims = [one for one in victims if one.state is State.RUNNING and one.window.sequence.pages]
        if not victims:
            return False
        youngest = max(victims, key=lambda request: request.number)
        youngest.put_back()
        self._cache.truncate(youngest.window.sequence, 0)
        self.n_preemptions += 1
        return True
