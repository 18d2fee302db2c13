"""Speculative decoding: guess some ids, and let one pass of the model say which of them it would have drawn.

A pass of a few rows costs little more than one of a single row, since both read all weights once. The random number of
a position is a function of the seed and the position, so what is drawn after a row is what plain decoding would draw
there if the guesses before it are right. A guess is kept if it, and every guess before it, is what was drawn. So the
ids are those of plain decoding, greedy or sampled, and only the time that they take depends on the drafter.

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
"""Index of an id in a text, prompt included -> the parameters with which it is drawn."""
DEFAULT_MAX_DRAFT = 15


class Drafter(Protocol):
    """Guesses the ids that follow a text. A drafter serves one text, which only grows until `reset`."""

    def propose(self, ids: list[int], n: int, params: DrawParamsAt) -> list[int]:
        """Up to n ids of the vocabulary that may follow `ids`; an empty list if there is no good guess."""
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


_SHORTEST_REST = 8  # ids to decode plainly before the next draft is tried
_REST_BY_COST = 25  # ids to rest for each plain id that one drafted id costs in time
_LARGEST_REST_FACTOR = 4
_SHORTEST_WAIT, _LONGEST_WAIT = 2, 16  # ids, while there is nothing to propose
_MEMORY = 0.9  # weight that earlier counts keep after each further drafted id
_HOPE = 0.2, 0.25  # initial counts, right and tested: p begins at 0.8, and one wrong id brings it to 0.15
_LEAST_COST = 1.02  # lower bound on the cost of a pass with a draft; the unit is the time of one plain id
_LIKELY_COST = 1.15  # cost of a pass with one drafted id, until it is measured
_N_MEASURED = 9  # times kept for a median, which ignores a late thread or a drafter that catches up on the text
_LENGTHS = tuple(2**k - 1 for k in range(1, MAX_LOGIT_ROWS.bit_length()))
"""Lengths of drafts to choose from. With the id before it, such a draft fills whole tiles of rows: a pass costs more
with each tile that it begins."""


class Pace:
    """Chooses how many ids to draft, from how often drafts were right and what passes with drafts cost.

    Model: each drafted id is right, if all before it are, with probability p; a pass over n drafted ids then yields
    1 + p + ... + p^n ids on average. p is an average that favours recent drafts. The cost of such a pass, the drafter's
    work included, is measured for each n in units of the time that plain decoding takes for one id. The n with the
    largest yield per cost is chosen. If no n beats plain decoding, drafting pauses for `rest` ids and then tries a
    single id again. While the drafter has nothing to propose, each pause is twice as long as the one before.
    """

    def __init__(self) -> None:
        self._plain: deque[float] = deque(maxlen=_N_MEASURED)  # seconds of an id without drafts
        self._costs = {1: deque([_LIKELY_COST], _N_MEASURED)}  # number of drafted ids -> costs, in plain ids
        self._rest_factor, self._wait = 1, _SHORTEST_WAIT
        self._try_after(1)  # the first id is plain, since the costs of drafts are relative to its time

    def _try_after(self, rest: int) -> None:
        self.rest = rest  # ids that the model should draw alone meanwhile
        self._trying = True
        self._reach = 1
        self._right, self._tested = _HOPE

    def _cost(self, n: int) -> float:
        """Cost of a pass with n drafted ids, in plain ids: its median, or that of the nearest n, scaled."""
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
        """Learn from a step: n_drafted proposed ids, 0 in plain decoding, led to n_ids new ids in so many seconds.

        After a draft, n_ids counts the right ids of the draft and the one drawn after them.
        """
        if not n_drafted:
            self._plain.append(seconds / n_ids)
            self.rest = max(0, self.rest - n_ids)
            return
        if n_drafted not in self._costs:
            self._costs[n_drafted] = deque([self._cost(n_drafted)], _N_MEASURED)
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
        """Raises ValueError unless max_draft is from 1 to MAX_LOGIT_ROWS - 1."""
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
        """How many ids to decode plainly when `draft` has returned none: at least 1."""
        return max(1, self._pace.rest)

    def note(self, n_drafted: int, n_ids: int, seconds: float) -> None:
        """Learn from a step and count it; arguments as for `Pace.note`."""
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
