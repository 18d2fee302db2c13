"""Log-likelihood of continuations after their contexts: many pairs in full passes, with beginnings read once.

The pairs are read in the order of their contexts, so that neighbours begin alike: what a context has in common with one
that was read before is not read again, and a context that has several continuations is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ..abi.layout import PAGE
from ..engine.engine import Engine
from ..engine.kv_cache import Sequence as KVSequence
from ..engine.model_runner import MAX_LOGIT_ROWS, MAX_ROWS
from ..engine.prefix_cache import LEAST_SHARED, n_in_common

Pair = tuple[list[int], list[int]]
"""Ids of a context and of what continues it, at least one each."""
_BATCH_ROWS = 2 * MAX_ROWS
"""Rows of contexts that are read before their continuations: enough that the last, shorter pass costs little."""


@dataclass(frozen=True)
class Likelihood:
    """What a model thinks of a continuation."""

    logprobs: np.ndarray  # float64 [n]: of each id given those before it, in nats
    is_greedy: bool  # True if each id is the likeliest one after those before it

    @property
    def total(self) -> float:
        """Log-probability of the continuation."""
        return float(self.logprobs.sum())

    @property
    def mean(self) -> float:
        """`total` divided by the number of ids."""
        return float(self.logprobs.mean())


def likelihoods(
    engine: Engine, pairs: Sequence[Pair], progress: Callable[[int], object] = lambda n: None
) -> list[Likelihood]:
    """Log-likelihood of each continuation after its context; the same bits as one by one.

    Where both together have more than n_ctx + 1 ids, the context loses its beginning, as in lm-evaluation-harness. (The
    last id is scored and not read.)

    Args:
        engine: runs the model.
        pairs: contexts and continuations.
        progress: called with the number of pairs that are done since the last call.

    Returns:
        One likelihood a pair, in their order.

    Raises:
        ValueError: a context or continuation has no ids, or a continuation has more than n_ctx.
    """
    cut = [_cut(engine.config.n_ctx, *pair) for pair in pairs]
    answers = [(np.empty(len(continuation)), np.empty(len(continuation), np.int32)) for _, continuation in cut]
    order = sorted(range(len(cut)), key=lambda i: cut[i][0])
    past, waiting = _Read([], KVSequence()), _Pass(engine, answers)
    for batch in _batches(cut, order, engine.cache.n_pages // 2):
        past = _read(engine, cut, batch, past, waiting)
        progress(len(batch))
    return [
        Likelihood(-nll, bool((likeliest == continuation).all()))
        for (_, continuation), (nll, likeliest) in zip(cut, answers, strict=True)
    ]


def is_cut(n_ctx: int, pair: Pair) -> bool:
    """True if the context loses its beginning: both together do not fit the model's context."""
    return len(pair[0]) + len(pair[1]) > n_ctx + 1


def _cut(n_ctx: int, context: list[int], continuation: list[int]) -> Pair:
    """The pair with as much of the context's end as fits. Raises ValueError."""
    if not context or not continuation:
        raise ValueError(f"a {'continuation' if context else 'context'} has no tokens; each needs at least one")
    if len(continuation) > n_ctx:
        raise ValueError(f"a continuation has {len(continuation)} tokens; this model's context is {n_ctx}: shorten it")
    return context[-(n_ctx + 1 - len(continuation)) :], continuation


def _batches(pairs: list[Pair], order: list[int], max_pages: int) -> Iterator[list[int]]:
    """Cut the order of pairs into batches by the rows to read and the pages of the KV cache that they may take."""
    batch: list[int] = []
    n_contexts = n_ids = n_pages = common = 0
    before: list[int] = []
    for i in order:
        context, continuation = pairs[i]
        is_new = not batch or context != before
        pages = 1 + -(-len(continuation) // PAGE) + is_new * -(-len(context) // PAGE)
        shared = min(common, n_in_common(before, context)) if batch else len(context)
        n_rows = n_ids + is_new * len(context) - (n_contexts + is_new - 1) * shared
        if batch and (n_rows > _BATCH_ROWS or n_pages + pages > max_pages or len(batch) == MAX_LOGIT_ROWS):
            yield batch
            batch, is_new, shared = [], True, len(context)
            n_contexts = n_ids = n_pages = 0
        batch.append(i)
        n_contexts, n_ids, n_pages = n_contexts + is_new, n_ids + is_new * len(context), n_pages + pages
        before, common = context, shared
    if batch:
        yield batch


@dataclass(frozen=True)
class _Read:
    """Ids that the cache has, and where."""

    ids: list[int]
    sequence: KVSequence

    def begin(self, engine: Engine, ids: list[int]) -> KVSequence:
        """A sequence with as many of the first ids as are there, if those are worth sharing."""
        n = n_in_common(self.ids, ids)
        return engine.fork(self.sequence, n if n >= LEAST_SHARED else 0)


def _read(engine: Engine, pairs: list[Pair], batch: list[int], past: _Read, waiting: _Pass) -> _Read:
    """Read a batch of pairs: what is new of all contexts, then the continuations -> the last context.

    past: the last context of the batch before.
    """
    first, last = pairs[batch[0]][0], pairs[batch[-1]][0]
    if first != last:
        past = _beginning(engine, first[: n_in_common(first, last)], past, waiting)
    forks = []
    for context, group in groupby(batch, key=lambda i: pairs[i][0]):
        members = list(group)
        sequence = past.begin(engine, context[:-1])  # the last row is read for its logits
        for token in context[sequence.length : -1]:
            waiting.add(token, sequence)
        waiting.add(context[-1], sequence, [(i, 0, pairs[i][1][0]) for i in members])
        forks += [(i, sequence) for i in members]
    waiting.run()
    for i, sequence in forks:
        continuation = pairs[i][1]
        fork = engine.fork(sequence, sequence.length)
        for place, token in enumerate(continuation[:-1], start=1):
            waiting.add(token, fork, [(i, place, continuation[place])])
    waiting.run()
    return _Read(last, forks[-1][1])


def _beginning(engine: Engine, common: list[int], past: _Read, waiting: _Pass) -> _Read:
    """What all contexts of a batch begin with, read if the cache does not have it."""
    if len(common) - n_in_common(past.ids, common) < LEAST_SHARED:
        return past
    sequence = past.begin(engine, common)
    for token in common[sequence.length :]:
        waiting.add(token, sequence)
    waiting.run()
    return _Read(common, sequence)


class _Pass:
    """Rows that wait for the next pass, and where the answers go."""

    def __init__(self, engine: Engine, answers: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """answers: for each pair, the NLL of each id of its continuation, and the likeliest id in its place."""
        self._engine = engine
        self._answers = answers
        self._clear()

    def _clear(self) -> None:
        self._ids: list[int] = []
        self._sequences: list[KVSequence] = []
        self._wants: list[int] = []
        self._asked: list[tuple[int, int, int]] = []

    def add(self, token: int, sequence: KVSequence, asked: Iterable[tuple[int, int, int]] = ()) -> None:
        """Add a row.

        asked: up to MAX_LOGIT_ROWS answers that its logits give: which pair, which id of its continuation, and that id.
        """
        asked = list(asked)
        if len(self._ids) == MAX_ROWS or len(self._asked) + len(asked) > MAX_LOGIT_ROWS:
            self.run()
        self._wants += [len(self._ids)] * len(asked)
        self._asked += asked
        self._ids.append(token)
        self._sequences.append(sequence)

    def run(self) -> None:
        """Run the pass, if there are rows, and fill in the answers."""
        if self._ids:
            targets = [target for _, _, target in self._asked]
            found = self._engine.judge(self._ids, self._sequences, self._wants, targets)
            for (pair, place, _), nll, likeliest in zip(self._asked, *found, strict=True):
                self._answers[pair][0][place], self._answers[pair][1][place] = nll, likeliest
        self._clear()
