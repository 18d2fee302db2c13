"""Drafters for speculative decoding: they guess the ids that one pass of the model then verifies.

Source: Saxena 2023, "Prompt Lookup Decoding"; Leviathan et al. 2023, "Fast Inference from Transformers via Speculative
Decoding". See engine/speculation.py for how drafts are checked, and why the text is the same with and without them.
"""

from __future__ import annotations

from itertools import cycle, islice

from ..engine.engine import Engine
from ..engine.kv_cache import Sequence
from ..engine.prefix_cache import n_in_common
from ..engine.speculation import DrawParamsAt


class PromptLookup:
    """Guesses that the last few ids are followed as they were before: by the longest match, the latest one."""

    def __init__(self, max_ngram: int = 4, min_ngram: int = 2) -> None:
        """Matches are of min_ngram to max_ngram ids. Raises ValueError if that is no range above 0."""
        if min_ngram < 1:
            raise ValueError(f"min_ngram is {min_ngram}; it must be at least 1")
        if max_ngram < min_ngram:
            raise ValueError(f"max_ngram is {max_ngram}; it must be at least min_ngram, {min_ngram}")
        self._sizes = range(min_ngram, max_ngram + 1)
        self.reset()

    def reset(self) -> None:
        self._next_place: dict[tuple[int, ...], int] = {}  # n-gram -> index of the id after its latest occurrence
        self._n_indexed = 0

    def propose(self, ids: list[int], n: int, params: DrawParamsAt) -> list[int]:
        for place in range(self._n_indexed, len(ids)):
            for size in self._sizes:
                if size <= place:
                    self._next_place[tuple(ids[place - size : place])] = place
        self._n_indexed = len(ids)
        for size in reversed(self._sizes):
            place = self._next_place.get(tuple(ids[-size:]), 0)
            if place:
                return list(islice(cycle(ids[place : place + n]), n))  # a loop goes round and round
        return []


class ModelDraft:
    """A smaller model of the same vocabulary guesses, with the random numbers of the target's draws."""

    def __init__(self, draft: Engine, target: Engine) -> None:
        """Raises ValueError if the two have different vocabularies."""
        if draft.config.n_vocab != target.config.n_vocab or draft.weights.tokenizer != target.weights.tokenizer:
            sizes = f"{draft.config.n_vocab} tokens, the model's {target.config.n_vocab}"
            raise ValueError(f"the draft's vocabulary has {sizes}; both must have the same")
        self._model = draft
        self._text = Sequence()
        self._ids: list[int] = []  # of the text

    def reset(self) -> None:
        self._model.free(self._text)
        self._ids = []

    def propose(self, ids: list[int], n: int, params: DrawParamsAt) -> list[int]:
        n = min(n, self._model.config.n_ctx + 1 - len(ids))
        if n < 1:
            return []
        if not self._model.lock.acquire(blocking=False):  # never wait for a model while another one's lock is held
            return []
        try:
            return self._draft(ids, n, params)
        finally:
            self._model.lock.release()

    def _draft(self, ids: list[int], n: int, params: DrawParamsAt) -> list[int]:
        n_known = n_in_common(self._ids, ids[:-1])
        self._model.truncate(self._text, n_known)
        del self._ids[n_known:]
        pending, draft = ids[n_known:], list[int]()
        for place in range(len(ids), len(ids) + n):
            draft.append(self._model.next_id(self._text, pending, params(place)))
            pending = draft[-1:]
        self._ids = [*ids, *draft[:-1]]
        return draft
