"""Speculative decoding: guess some ids, and let one pass of the model say which of them it would have drawn.

A pass of a few rows costs little more than one of a single row, since both read all weights once. The random number of
a position is a function of the seed and the position, so what is drawn after a row is what plain decoding would draw
there if the guesses before it are right. Guesses are kept while they are what was drawn: the ids are those of plain
decoding, greedy or sampled, and only the time that they take depends on the drafter.

Sources: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding"; Saxena 2023, "Prompt Lookup
Decoding". Their acceptance rule keeps the distribution; this one keeps the ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from ..sampling.params import DrawParams
from .kv_cache import Sequence
from .model_runner import MAX_LOGIT_ROWS, ModelRunner
from .prefix_cache import n_in_common

DrawParamsAt = Callable[[int], DrawParams]
"""How to draw the id at a place of a text, its prompt included."""
DEFAULT_MAX_DRAFT = 15


class Drafter(Protocol):
    """Guesses how a text goes on; of one text at a time, which only grows until `reset`."""

    def propose(self, ids: list[int], n: int, params: DrawParamsAt) -> list[int]:
        """Up to n ids that may follow ids, none if there is no good guess; ids of the vocabulary."""
        ...

    def reset(self) -> None:
        """Forget the text and give its memory back."""
        ...


@dataclass
class Statistics:
    """How drafting went."""

    passes: int = 0  # of the model, after the prompt
    proposed: int = 0
    accepted: int = 0

    @property
    def acceptance_rate(self) -> float:
        """Share of the proposed ids that were right."""
        return self.accepted / self.proposed if self.proposed else 0.0


_SHORTEST_REST = 8  # ids
_REST_BY_COST = 25  # ids for each that a drafted id costs
_LARGEST_REST_FACTOR = 4
_SHORTEST_WAIT, _LONGEST_WAIT = 2, 16  # ids, while there is nothing to propose
_MEMORY = 0.9  # how much of what was counted is left after one more id
_HOPE = 0.2, 0.25  # right and tested to begin with: likely, but one wrong id disproves it
_LEAST_COST = 1.02  # of a pass with a draft, in plain ids
_LIKELY_COST = 1.15  # of one with a single drafted id, until it is measured
_MEASURED = 9  # times, whose median does not move when a thread is late or a drafter reads what it has missed
_LENGTHS = tuple(2**k - 1 for k in range(1, MAX_LOGIT_ROWS.bit_length()))
"""Drafts that fill whole tiles of rows, with the id before them: what a pass costs goes up by the tile."""


class Pace:
    """Chooses how many ids to draft, from how often drafts were right and what passes with drafts cost.

    Model: each drafted id is right, if all before it are, with probability p; a pass over n drafted ids then yields
    1 + p + ... + p^n ids on average. p is an average that favours recent drafts. The cost of such a pass, the drafter's
    work included, is measured for each n in units of the time that plain decoding takes for one id. The n with the
    largest yield per cost is chosen. If no n beats plain decoding, drafting pauses for `rest` ids and then tries a
    single id again. While the drafter has nothing to propose, each pause is twice as long as the one before.
    """

    def __init__(self) -> None:
        self._plain: deque[float] = deque(maxlen=_MEASURED)  # seconds of an id without drafts
        self._costs = {1: deque([_LIKELY_COST], _MEASURED)}  # of a pass with so many drafted ids
        self._rest_factor, self._wait = 1, _SHORTEST_WAIT
        self._try_after(1)  # so that a plain id has been measured before a draft is

    def _try_after(self, rest: int) -> None:
        self.rest = rest  # ids that the model should draw alone meanwhile
        self._trying = True
        self._reach = 1
        self._right, self._tested = _HOPE

    def _cost(self, n: int) -> float:
        """Of a pass with n drafted ids: the median, or what those that were measured let expect."""
        nearest = min(self._costs, key=lambda known: abs(known - n))
        return max(_LEAST_COST, 1 + (median(self._costs[nearest]) - 1) * n / nearest)

    def length(self, most: int) -> int:
        """How many ids to draft, at most `most`."""
        if self.rest or most < 1:
            return 0
        if self._trying:
            return 1
        p, best, best_gain = self._right / self._tested, 0, 1.0
        for n in sorted({min(most, self._reach, length) for length in _LENGTHS}):
            gain = sum(p**i for i in range(n + 1)) / self._cost(n)
            if gain > best_gain:
                best, best_gain = n, gain
        if not best:
            self._try_after(self._rest_factor * max(_SHORTEST_REST, round(_REST_BY_COST * (self._cost(1) - 1))))
            self._rest_factor = min(2 * self._rest_factor, _LARGEST_REST_FACTOR)
        return best

    def note_nothing(self) -> None:
        """There was nothing to propose: rest, each time for longer."""
        self.rest = self._wait
        self._wait = min(2 * self._wait, _LONGEST_WAIT)

    def note(self, n_drafted: int, n_ids: int, seconds: float) -> None:
        """What came of it: so many ids, the one after the right ones of the draft included."""
        if not n_drafted:
            self._plain.append(seconds / n_ids)
            self.rest = max(0, self.rest - n_ids)
            return
        if n_drafted not in self._costs:
            self._costs[n_drafted] = deque([self._cost(n_drafted)], _MEASURED)
        self._costs[n_drafted].append(seconds / median(self._plain))
        self._trying = False
        n_right, n_tested = n_ids - 1, min(n_ids, n_drafted)
        faded = _MEMORY**n_tested
        self._right, self._tested = faded * self._right + n_right, faded * self._tested + n_tested
        if n_right == n_drafted:
            self._reach = max(self._reach, 2 * n_drafted + 1)
        if n_right:
            self._wait = _SHORTEST_WAIT
        if n_right > 1:
            self._rest_factor = 1


class Speculation:
    """Drafts the ids of one text, as many as pay."""

    def __init__(
        self, drafter: Drafter, max_draft: int = DEFAULT_MAX_DRAFT, statistics: Statistics | None = None
    ) -> None:
        """Raises ValueError for a max_draft that is none."""
        if not 1 <= max_draft < MAX_LOGIT_ROWS:
            raise ValueError(f"max_draft is {max_draft}; it must be from 1 to {MAX_LOGIT_ROWS - 1}")
        self.statistics = Statistics() if statistics is None else statistics
        self._drafter = drafter
        self._max_draft = max_draft
        self._pace = Pace()

    def draft(self, ids: list[int], most: int, params: DrawParamsAt) -> list[int]:
        """Up to `most` ids that may follow ids; none where that would not pay, or if there is no good guess."""
        n = self._pace.length(min(self._max_draft, most))
        draft = self._drafter.propose(ids, n, params)[:n] if n else []
        if n and not draft:
            self._pace.note_nothing()
        return draft

    @property
    def rest(self) -> int:
        """How many ids to draw without a draft, after there was none."""
        return max(1, self._pace.rest)

    def note(self, n_drafted: int, n_ids: int, seconds: float) -> None:
        """What came of a draft, or of none: so many ids, in so many seconds."""
        self._pace.note(n_drafted, n_ids, seconds)
        n_right = n_ids - 1 if n_drafted else 0
        self.statistics.passes += n_ids - n_right
        self.statistics.proposed += n_drafted
        self.statistics.accepted += n_right

    def end(self) -> None:
        """Give the drafter's memory back."""
        self._drafter.reset()


def verify(runner: ModelRunner, past: Sequence, ids: list[int], draft: list[int], params: DrawParamsAt) -> list[int]:
    """One pass over the last id and the draft -> the ids of the draft that are right, and the one drawn after them.

    past holds all of ids but the last; afterwards it holds them all, and the part of the draft that is right.
    """
    rows = [ids[-1], *draft]
    runner.forward(rows, [past] * len(rows), range(len(rows)), [params(len(ids) + i) for i in range(len(rows))])
    drawn: list[int] = runner.drawn.tolist()
    n_right = n_in_common(draft, drawn)
    runner.cache.truncate(past, len(ids) + n_right)
    return drawn[: n_right + 1]
