"""The tasks that write no text: score, embed, classify, rank and choices, for many rows in a pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from ..model import Model
from ..tasks.classification import Classification
from ..tasks.scoring import Score
from .job import Answer, Question

_AT_ONCE = 64
"""Questions that are read together."""

Fields = dict[str, Any]
Ask = Callable[[Sequence[Question]], list[Fields]]
"""The answers to some questions. Raises ValueError if one of them has none."""


class Reading:
    """Reads prompts, and says something about each."""

    def __init__(self, model: Model, task: str, options: Mapping[str, Any]) -> None:
        """options: as keyword arguments of the method of `Model`, and those of `_ranked`.

        Raises ValueError if the model cannot do the task.
        """
        self._model, self._bos = model, options.get("bos")
        self._ask: Ask = partial(_TASKS[task], model, options)
        self._ask([])

    def answers(self, questions: Iterator[Question]) -> Iterator[Answer]:
        """The answers, in order."""
        while asked := list(islice(questions, _AT_ONCE)):
            try:
                found = [Answer(one.row, fields) for one, fields in zip(asked, self._ask(asked), strict=True)]
            except ValueError:
                found = list(map(self._alone, asked))
            for one, answer in zip(asked, found, strict=True):
                n_tokens = 0 if answer.error else len(self._model.encode(one.prompt, self._bos))
                yield replace(answer, prompt_tokens=n_tokens)

    def _alone(self, question: Question) -> Answer:
        try:
            return Answer(question.row, self._ask([question])[0])
        except ValueError as error:
            return Answer(question.row, error=str(error))


def _prompts(questions: Sequence[Question]) -> list[str]:
    return [one.prompt for one in questions]


def _score(model: Model, options: Mapping[str, Any], questions: Sequence[Question]) -> list[Fields]:
    return [_scored(score) for score in model.score_batch(_prompts(questions), **options)]


def _scored(score: Score) -> Fields:
    is_scored = score.logprobs not in ([], [None])  # without a scored token the mean is nan, which JSON does not have
    return {"total": score.total, "mean": score.mean if is_scored else None, **vars(score)}


def _embed(model: Model, options: Mapping[str, Any], questions: Sequence[Question]) -> list[Fields]:
    vectors = model.embed(_prompts(questions), **options)
    return [{"embedding": [float(f"{number:.9g}") for number in vector]} for vector in vectors]


def _classify(model: Model, options: Mapping[str, Any], questions: Sequence[Question]) -> list[Fields]:
    return [_labelled(found) for found in model.classify(_prompts(questions), **options)]


def _labelled(found: Classification) -> Fields:
    return {"label": found.label, "probabilities": found.probabilities}


def _ranked(model: Model, options: Mapping[str, Any], question: Question) -> list[tuple[str, float]]:
    """The choices of a question, likeliest first: those of a column, or the same for all."""
    own = dict(options)
    column, choices = own.pop("choices_column", None), own.pop("choice", None)
    if column is not None:
        choices = question.row.columns.get(column)
        if not (isinstance(choices, list) and all(isinstance(one, str) for one in choices)):
            raise ValueError(f"its choices, column {column!r}, are {choices!r:.60}; they must be a list of texts")
    return model.rank(question.prompt, choices, **own)


def _rank(model: Model, options: Mapping[str, Any], questions: Sequence[Question]) -> list[Fields]:
    ranked = [_ranked(model, options, one) for one in questions]
    return [{"ranked": [{"choice": choice, "logprob": p} for choice, p in one]} for one in ranked]


def _choose(model: Model, options: Mapping[str, Any], questions: Sequence[Question]) -> list[Fields]:
    """The likeliest choice, and the share of each among the choices."""
    return [_chosen(_ranked(model, options, one)) for one in questions]


def _chosen(ranked: list[tuple[str, float]]) -> Fields:
    best = ranked[0][1]
    odds = {choice: math.exp(logprob - best) for choice, logprob in ranked}
    total = math.fsum(odds.values())
    return {"choice": ranked[0][0], "probabilities": {choice: one / total for choice, one in odds.items()}}


_TASKS: Mapping[str, Callable[[Model, Mapping[str, Any], Sequence[Question]], list[Fields]]] = {
    "score": _score,
    "embed": _embed,
    "classify": _classify,
    "rank": _rank,
    "choices": _choose,
}
