"""The engine: a model runner, a scheduler and the lock that all calls share. Ids in; ids, logits or states out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Ids
from numbers import Integral
from typing import Any, TypeVar

import numpy as np

from ..sampling.params import DrawParams
from ..validation import check
from ..weights import Weights
from .kept_text import KeptText
from .kv_cache import KVDtype, Sequence
from .model_runner import MAX_LOGIT_ROWS, MAX_ROWS, ModelRunner
from .request import Request
from .scheduler import Scheduler
from .turns import Turns, takes_turns

_Result = TypeVar("_Result")
_IDLE = 1e-4
"""Sleep in seconds after a step in which all requests had to wait for others."""
_GREEDY = DrawParams(temperature=0, top_k=0, top_p=1, uniform=0)


class Engine(Turns):
    """Weights, a KV cache and a thread pool, shared by all threads of the process: their calls take turns."""

    def __init__(
        self, weights: Weights, threads: int | None = None, kv_dtype: KVDtype = "float32", kv_memory: int | None = None
    ) -> None:
        """Arguments and errors as for `ModelRunner`."""
        self.runner = ModelRunner(weights, threads, kv_dtype, kv_memory)
        self.config, self.cache = self.runner.config, self.runner.cache
        self.scheduler = Scheduler(self.runner)
        self._asking: dict[object, Ids[Request]] = {}  # the requests of each call of `advance` under way
        super().__init__()

    @property
    def weights(self) -> Weights:
        return self.runner.weights

    @property
    def absent_ids(self) -> np.ndarray:
        """Ids without a token, int64 [n], which are never chosen."""
        return self.runner.absent_ids

    @property
    def n_threads(self) -> int:
        return self.runner.thread_pool.n_threads

    @property
    @takes_turns
    def kv_bytes_in_use(self) -> int:
        """Bytes of the KV cache in use, without pages that only the prefix cache holds and frees on demand."""
        n_idle = self.cache.n_held_only_by(self.scheduler.prefix_cache.pages)
        return (self.cache.n_used - n_idle) * self.cache.page_bytes

    def check_open(self) -> None:
        """Raise RuntimeError if the model is closed."""
        self.runner.check_open()

    @takes_turns
    def close(self) -> None:
        """Give memory and threads back; what then needs the model raises RuntimeError."""
        self.scheduler.prefix_cache.clear()
        self.runner.close()

    def recount(self) -> None:
        """Count the references to the cache's pages again: an interrupted call may have left them wrong."""
        self.cache.recount()

    def recover(self) -> None:
        """End the requests of a step that was cut short."""
        self.scheduler.fail_interrupted()

    def forget_threads(self) -> None:
        """Forget what the other threads of the parent process have asked for."""
        super().forget_threads()
        self._asking.clear()

    # --- Requests -----------------------------------------------------------------------------------------------------

    def add(self, request: Request) -> None:
        """Add a request: it grows while a thread calls `advance` for it.

        Raises ValueError if the KV cache can never hold it.
        """
        self.scheduler.add(request)

    def advance(self, requests: Ids[Request], update: Callable[[], bool]) -> None:
        """Run one step, for these requests and those of other threads that wait here. Raises what ended the step.

        update: called before the step and after it. If it returns True before, because a step of another thread has
        already produced what the caller waits for, no step runs.
        Between two calls nothing changes the requests unless another thread advances them too, so what the caller then
        reads of them belongs together.
        """
        me = object()
        self._asking[me] = requests
        try:
            self._advance(me, update)
        finally:
            self._asking.pop(me, None)  # again, for a call that was interrupted before its turn

    @takes_turns
    def _advance(self, me: object, update: Callable[[], bool]) -> None:
        try:
            self.runner.check_open()
            if update():
                return
            grown = self.scheduler.step([request for asked in list(self._asking.values()) for request in asked])
            update()
            if not grown:
                time.sleep(_IDLE)
        finally:
            self._asking.pop(me, None)  # before other threads get their turns

    @takes_turns
    def between_steps(self, call: Callable[[], _Result]) -> _Result:
        """call(), while no step of another thread runs."""
        return call()

    def tokens(self, request: Request) -> Iterator[int]:
        """The new ids of a request, as they are made; a generator that is dropped lets the request go."""
        self.add(request)
        n_seen = 0

        def has_grown() -> bool:
            return len(request.tokens) > n_seen

        while not request.finish_reason:
            self.advance([request], has_grown)
            if request.error:
                raise request.error
            new = request.tokens[n_seen:]
            n_seen += len(new)
            yield from new

    @takes_turns
    def retire(self, requests: Ids[Request]) -> None:
        """Take requests out of the batch, ended or not; their pages are freed or left to their session."""
        for request in requests:
            self.scheduler.retire(request)

    @takes_turns
    def settle(self, kept: KeptText) -> None:
        """Move the pages of a session's ended requests to its kept text, as `KeptTexts.settle` does."""
        self.scheduler.kept.settle(kept)

    @takes_turns
    def forget(self, kept: KeptText) -> None:
        """Drop a session's text, and what its running requests would leave to it when they end."""
        kept.is_dropped = True
        self.scheduler.kept.settle(kept)
        self.scheduler.kept.drop(kept)

    @takes_turns
    def copy_kept(self, kept: KeptText) -> tuple[list[int], np.ndarray]:
        """The ids of a session's text, and a copy of the pages that hold them: [n_pages, page_size]."""
        self.runner.check_open()
        self.scheduler.kept.settle(kept)
        return kept.ids.copy(), self.cache.copy(kept.sequence)

    @takes_turns
    def restore_kept(self, ids: list[int], pages: np.ndarray) -> KeptText:
        """A session's text, from the ids and pages that `copy_kept` returned."""
        self.runner.check_open()
        kept = KeptText()
        kept.sequence = self.cache.restore(pages, len(ids))
        kept.ids = ids
        self.scheduler.kept.add(kept)
        return kept

    # --- Passes -------------------------------------------------------------------------------------------------------

    @takes_turns
    def append(self, sequence: Sequence, ids: Ids[int]) -> None:
        """Append ids to a sequence."""
        self.runner.append(sequence, ids)

    @takes_turns
    def next_id(self, sequence: Sequence, ids: Ids[int], params: DrawParams) -> int:
        """Append ids to a sequence and draw the id that follows."""
        self.runner.append(sequence, ids, [params])
        return int(self.runner.drawn[0])

    @takes_turns
    def next_ids(self, sequences: list[Sequence], ids: Ids[int], params: list[DrawParams]) -> list[int]:
        """Append one id to each sequence -> the ids drawn after them."""
        self.runner.forward(ids, sequences, range(len(ids)), params)
        drawn: list[int] = self.runner.drawn.tolist()
        return drawn

    @takes_turns
    def outputs(self, ids: Ids[int], sequences: list[Sequence], wants: Ids[int]) -> tuple[np.ndarray, np.ndarray]:
        """A pass as in `ModelRunner.forward` -> logits and outputs of ln_f, both copies, of the rows in wants.

        wants: numbers of rows. The logits are float32 [len(wants), n_vocab]; the outputs of ln_f, from which the LM
        head makes them, float32 [len(wants), n_embd].
        """
        logits = self.runner.forward(ids, sequences, wants, is_observed=True).copy()
        return logits, self.runner.buffers["ln_2"][: len(wants), : self.config.n_embd].copy()

    def check_room(self, ids: Ids[int], max_tokens: int, *, reads_last: bool = False) -> None:
        """Raise ValueError unless there is a prompt and it fits the context together with max_tokens new ids.

        reads_last: the last new id is read and takes a position too; by default it is only chosen.
        """
        if not ids:
            raise ValueError("the prompt has no tokens; begin with the model's end of text")
        check("max_tokens", max_tokens, Integral, lambda n: n >= 1, "from 1 on")
        n_ctx, wanted = self.config.n_ctx, len(ids) + max_tokens - (not reads_last)
        if wanted > n_ctx:
            raise ValueError(
                f"prompt of {len(ids)} tokens and {max_tokens} new ones need {wanted} positions; this model's "
                f"context is {n_ctx}: shorten one of them"
            )

    def logits(self, ids: Ids[int]) -> Iterator[np.ndarray]:
        """Read ids from an empty context -> logits float32 [n, n_vocab] after each of them, part by part."""
        self.check_open()
        sequence = Sequence()
        for start in range(0, len(ids), MAX_LOGIT_ROWS):
            part = ids[start : start + MAX_LOGIT_ROWS]
            yield self.logits_after(part, [sequence] * len(part))

    @takes_turns
    def logits_after(self, ids: Ids[int], sequences: list[Sequence]) -> np.ndarray:
        """Append each row's id to its sequence, up to MAX_LOGIT_ROWS rows -> logits float32 [n, n_vocab], a copy."""
        logits: np.ndarray = self.runner.forward(ids, sequences, range(len(ids))).copy()
        return logits

    @takes_turns
    def _nll(self, ids: Ids[int], sequences: list[Sequence], targets: Ids[int]) -> np.ndarray:
        """-log p(target) in nats after each of the first rows, float64 [len(targets)]."""
        self.runner.forward(ids, sequences, range(len(targets)), targets=targets)
        return self.runner.nll

    def nll(self, ids: Ids[int], first: int = 1) -> np.ndarray:
        """-log p(id | the ids before it) in nats, float64 [len(ids) - first], of the ids from `first` >= 1 on."""
        sequence, parts = Sequence(), [np.empty(0)]
        start = 0
        while start < len(ids) - 1:
            unscored = max(0, first - 1 - start)
            rows = min(MAX_ROWS, unscored) if unscored else min(MAX_LOGIT_ROWS, len(ids) - 1 - start)
            targets = [] if unscored else ids[start + 1 : start + 1 + rows]
            parts.append(self._nll(ids[start : start + rows], [sequence] * rows, targets))
            start += rows
        return np.concatenate(parts)

    def nll_of(self, texts: list[list[int]], shared: Ids[int] = ()) -> list[np.ndarray]:
        """-log p in nats of the ids of each text but its first, given those before them: float64 [len(text) - 1] each.

        shared: what stands before every text; it is read once.
        """
        past = Sequence()
        if shared:
            self.append(past, shared)
        sequences = [self.fork(past, past.length) for _ in texts]
        self.free(past)
        lengths = [len(text) - 1 for text in texts]
        ids = [token for text in texts for token in text[:-1]]
        targets = [token for text in texts for token in text[1:]]
        found = np.empty(len(targets))
        for rows, owners in self._in_passes(sequences, lengths, MAX_LOGIT_ROWS):
            found[rows] = self._nll(ids[rows], owners, targets[rows])
        return np.split(found, np.cumsum(lengths))[:-1]

    @takes_turns
    def judge(
        self, ids: Ids[int], sequences: list[Sequence], wants: Ids[int], targets: Ids[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A pass as in `ModelRunner.forward` -> -log p(target) in nats after each row in wants, and the likeliest id.

        wants: numbers of rows; a row may stand there several times, each time with another target.
        The results are float64 and int32 [len(wants)].
        """
        self.runner.forward(ids, sequences, wants, [_GREEDY] * len(wants), targets)
        return self.runner.nll, self.runner.drawn

    def hidden(self, texts: Ids[Ids[int]], layer: int) -> Iterator[np.ndarray]:
        """Read texts, each from an empty context -> the residual stream after the first `layer` layers, before ln_f.

        float32 [n, n_embd], a row for each token of the first text, then of the second, ..., part by part.
        """
        return (streams[0] for streams in self.hidden_after(texts, [layer]))

    def hidden_after(self, texts: Ids[Ids[int]], layers: Ids[int]) -> Iterator[np.ndarray]:
        """`hidden` after several numbers of layers, in ascending order: float32 [len(layers), n, n_embd]."""
        ids = [token for text in texts for token in text]
        for rows, sequences in self._in_passes([Sequence() for _ in texts], list(map(len, texts)), MAX_ROWS):
            yield self._hidden_after(ids[rows], sequences, layers)

    @takes_turns
    def _hidden_after(self, ids: Ids[int], sequences: list[Sequence], layers: Ids[int]) -> np.ndarray:
        return self.runner.streams(ids, sequences, layers)

    def _in_passes(
        self, sequences: list[Sequence], lengths: list[int], max_rows: int
    ) -> Iterator[tuple[slice, list[Sequence]]]:
        """Cut the rows of several sequences into passes of up to max_rows -> which rows, and the sequence of each.

        lengths: the number of rows of each sequence. A sequence is freed after the pass that reads its last row.
        """
        owners = [sequence for sequence, n in zip(sequences, lengths, strict=True) for _ in range(n)]
        for start in range(0, len(owners), max_rows):
            stop = min(start + max_rows, len(owners))
            yield slice(start, stop), owners[start:stop]
            unfinished = owners[stop] if stop < len(owners) else None
            for sequence in owners[start:stop]:
                if sequence is not unfinished:
                    self.free(sequence)

    @takes_turns
    def run_parts(self, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        """`ModelRunner.run_parts` under the lock."""
        return self.runner.run_parts(*args, **kwargs)

    # --- Sequences ----------------------------------------------------------------------------------------------------

    def free(self, sequence: Sequence) -> None:
        """Empty a sequence and free its pages. Takes no lock, so that finalizers may call it."""
        self.cache.free(sequence)

    @takes_turns
    def truncate(self, sequence: Sequence, length: int) -> None:
        """Forget the positions of a sequence from length on."""
        self.cache.truncate(sequence, length)

    @takes_turns
    def fork(self, sequence: Sequence, length: int) -> Sequence:
        """Another sequence with the first `length` positions of this one."""
        return self.cache.fork(sequence, length)
