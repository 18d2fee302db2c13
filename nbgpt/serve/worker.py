"""The engine thread: it runs the steps of all models, and never waits for a client."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from ..engine.engine import Engine
from ..engine.request import State
from ..sampling.logprobs import TokenLogprob
from ..text.stream import Writer
from .errors import ApiError
from .metrics import Metrics, TextTiming

_GAP_SECONDS, _GATHER_SECONDS = 0.003, 0.03
"""How long an idle engine thread waits for another request after the last one, and after the first one."""
_STOPPING = "the server is stopping"


@dataclass(frozen=True)
class Delta:
    """What a step has added to one text of a group."""

    index: int
    text: str
    logprobs: list[TokenLogprob]
    finish_reason: str | None


class TextGroup:
    """The texts of one HTTP request. Made, and iterated over, in the thread of asyncio's loop."""

    def __init__(self, engine: Engine, writers: Sequence[Writer], is_streamed: bool) -> None:
        self.engine, self.writers, self.is_streamed = engine, writers, is_streamed
        self.timings = [TextTiming(time.monotonic()) for _ in writers]
        self._n_sent = [0] * len(writers)  # log-probabilities of each text that were sent
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._deltas: list[Delta] = []
        self._error: BaseException | None = None
        self._has_expired = False

    @property
    def has_begun(self) -> bool:
        """True once a pass has read a part of one of the prompts: then there is an answer, whenever it ends."""
        return any(writer.request.has_begun for writer in self.writers)

    def cancel(self) -> None:
        """End all texts before the next step. Any thread may call this."""
        for writer in self.writers:
            writer.request.cancel()

    def expire(self) -> None:
        """End all texts before the next step, because their time is over."""
        self._has_expired = True
        self.cancel()

    async def deltas(self) -> AsyncIterator[list[Delta]]:
        """New deltas, as soon as there are any; raises the error that ended the group."""
        n_open = len(self.writers)
        while n_open:
            await self._news.wait()
            self._news.clear()
            if self._error is not None:
                raise self._error
            deltas, self._deltas = self._deltas, []
            n_open -= sum(delta.finish_reason is not None for delta in deltas)
            yield deltas

    def collect(self, index: int) -> Delta | None:
        """What a text has gained since its last delta; None if nothing is to be sent yet. For the engine thread.

        A text that is not streamed is one delta, at its end.
        """
        writer = self.writers[index]
        if not (writer.is_closed or (self.is_streamed and writer.pieces)):
            return None
        text = "".join(writer.pieces)
        writer.pieces.clear()
        start, self._n_sent[index] = self._n_sent[index], len(writer.logprobs)
        reason = writer.request.finish_reason if writer.is_closed else None
        if reason == "cancelled" and self._has_expired:
            reason = "time"
        return Delta(index, text, writer.logprobs[start:], reason)

    def deliver(self, deltas: list[Delta], error: BaseException | None) -> None:
        """Hand over what is new. For the thread of the loop."""
        self._deltas += deltas
        self._error = error
        self._news.set()


@dataclass(eq=False)
class _Open:
    """A text that has not ended."""

    group: TextGroup
    index: int

    @property
    def writer(self) -> Writer:
        return self.group.writers[self.index]

    @property
    def timing(self) -> TextTiming:
        return self.group.timings[self.index]


_Batch = list[tuple[TextGroup, list[Delta], BaseException | None]]


class Worker:
    """Runs groups of any number of models, a step of each model in turn, in a thread of its own."""

    def __init__(self, max_batch: int, max_queue: int, metrics: Metrics) -> None:
        """max_batch: texts of a model that grow at a time.

        max_queue: texts that may wait for a place; all models together have at most max_batch + max_queue texts.
        """
        self._max_batch, self._max_queue, self._metrics = max_batch, max_queue, metrics
        self._changed = threading.Condition()
        self._open: dict[Engine, list[_Open]] = defaultdict(list)  # by arrival
        self._is_stopping = self._has_started = False
        self._thread = threading.Thread(target=self._run, name="nbgpt-engine", daemon=True)

    def stop(self) -> None:
        """Cancel what is open and end the thread."""
        with self._changed:
            self._is_stopping = True
            for texts in self._open.values():
                for text in texts:
                    text.writer.request.cancel()
            self._changed.notify()
        if self._has_started:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """False if the thread has died."""
        return not self._has_started or self._thread.is_alive()

    def counts(self) -> tuple[int, int]:
        """Texts that grow, and texts that wait for a place or for memory."""
        with self._changed:
            texts = [text for texts in self._open.values() for text in texts]
        n_running = sum(text.writer.request.state is State.RUNNING for text in texts)
        return n_running, len(texts) - n_running

    @property
    def is_full(self) -> bool:
        """True if no further text is taken."""
        with self._changed:
            return self._n_open() >= self._max_batch + self._max_queue

    def _n_open(self) -> int:
        return sum(map(len, self._open.values()))

    def submit(self, group: TextGroup) -> None:
        """Let the engine thread work on a group.

        Raises ApiError: the server is stopping, the queue is full, or the KV cache can never hold one of its texts.
        """
        with self._changed:
            if self._is_stopping:
                raise ApiError(503, _STOPPING)
            places = self._max_batch + self._max_queue - self._n_open()
            if len(group.writers) > places:
                raise ApiError(429, f"{len(group.writers)} texts are too many now: {max(0, places)} places are free")
            try:
                for writer in group.writers:
                    group.engine.add(writer.request)
            except ValueError as error:
                raise ApiError(400, str(error), code="context_length_exceeded") from None
            self._open[group.engine] += [_Open(group, index) for index in range(len(group.writers))]
            self._changed.notify()
            if not self._has_started:
                self._has_started = True
                self._thread.start()

    # --- In the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._n_open():
                    self._changed.wait_for(lambda: self._n_open() or self._is_stopping)
                    self._wait_for_more()
                if self._is_stopping and not self._n_open():
                    return
                work = {engine: list(texts) for engine, texts in self._open.items() if texts}
            for engine, texts in work.items():
                self._step(engine, texts)

    def _wait_for_more(self) -> None:
        """Let requests that come together be read together: one pass over all prompts is quicker than many."""
        deadline = time.monotonic() + _GATHER_SECONDS
        while self._changed.wait(_GAP_SECONDS) and time.monotonic() < deadline:
            pass

    def _step(self, engine: Engine, texts: list[_Open]) -> None:
        """Run one step of a model, and send its results to the groups."""
        growing = texts[: self._max_batch]
        error: Exception | None = None
        try:
            engine.advance([text.writer.request for text in growing], lambda: False)
        except Exception as raised:  # the pass failed: this has ended all requests that took part
            error = raised
        cancelled = [text for text in texts[self._max_batch :] if text.writer.request.is_cancelled]
        news: dict[TextGroup, list[Delta]] = defaultdict(list)
        failed: dict[TextGroup, BaseException] = {}
        for text in [*growing, *cancelled]:
            try:
                if error is not None:
                    raise error
                if delta := self._written(text):
                    news[text.group].append(delta)
            except Exception as raised:  # this ends one group only
                failed[text.group] = raised
        self._close(engine, failed)
        self._deliver(news, failed)

    def _written(self, text: _Open) -> Delta | None:
        """The delta that a text sends after a step, if any. Raises the error that ended it."""
        request = text.writer.request
        if request.error is not None:
            raise request.error
        if request.is_cancelled and not text.group.has_begun:
            waited = "the request had to wait too long for a place, and was given up"
            raise ApiError(503, _STOPPING if self._is_stopping else waited)
        if request.is_cancelled:
            request.end_early()  # one that has no place yet takes part in no step, which would do it
        text.writer.update()
        self._metrics.observe(request, text.timing)
        return text.group.collect(text.index)

    def _close(self, engine: Engine, failed: dict[TextGroup, BaseException]) -> None:
        """Take the texts out that have ended, with all texts of a group that has failed."""
        with self._changed:
            ended = [text for text in self._open[engine] if text.writer.is_closed or text.group in failed]
            self._open[engine] = [text for text in self._open[engine] if text not in ended]
        if ended:
            engine.retire([text.writer.request for text in ended])
        for text in ended:
            self._metrics.note_end(text.writer.request, text.timing)

    def _deliver(self, news: dict[TextGroup, list[Delta]], failed: dict[TextGroup, BaseException]) -> None:
        """Send new deltas and errors to the groups, with one callback for all groups of an event loop."""
        batches: dict[asyncio.AbstractEventLoop, _Batch] = defaultdict(list)
        for group in {**news, **failed}:
            batches[group._loop].append((group, news[group], failed.get(group)))
        for loop, batch in batches.items():
            try:
                loop.call_soon_threadsafe(_hand_over, batch)
            except RuntimeError:  # the loop is closed: nobody waits any more
                for group, _, _ in batch:
                    group.cancel()


def _hand_over(batch: _Batch) -> None:
    for group, deltas, error in batch:
        group.deliver(deltas, error)
