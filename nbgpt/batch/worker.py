"""Answers the rows of shards: what one process with one model does, wherever it runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..model import Model
from ..weights import ClassifierHead, Weights, fingerprint
from .generation import Generating
from .index import Shard, rows_of
from .job import Answer, Asker, Job, Question
from .openai import OpenAI, failure
from .reading import Reading
from .table import Table

_LEAST_READ = 112
"""Rows for prompts in a step in which texts decode: nobody waits for the next token of a batch."""


class Answers(Protocol):
    """Answers questions in whatever order it likes, and takes the next ones when there is room."""

    def answers(self, questions: Iterator[Question]) -> Iterator[Answer]:
        """The answers as they come."""
        ...


@dataclass(frozen=True)
class Finished:
    """A shard whose rows are all answered."""

    number: int
    lines: bytes  # JSON lines in the order of the rows
    errors: bytes  # JSON lines of the rows that could not be answered
    n_rows: int
    n_failed: int
    first_error: str  # of them; "" if there is none
    prompt_tokens: int
    new_tokens: int


@dataclass
class _Pending:
    """A shard some of whose rows are not answered yet."""

    shard: Shard
    answers: dict[int, Answer] = field(default_factory=dict)  # by number of the row

    @property
    def is_complete(self) -> bool:
        return len(self.answers) == self.shard.n_rows


def answers_of(model: Model, job: Job, batch_size: int) -> Answers:
    """What answers the questions of a job. Raises ValueError, TypeError or ImportError for a job that it cannot do."""
    _check_memory(model)
    model.engine.scheduler.least_read = _LEAST_READ
    if job.is_openai:
        return OpenAI(model, job.chat_template, batch_size)
    if job.task == "generate":
        return Generating(model, job.options, batch_size)
    return Reading(model, job.task, job.options)


def _check_memory(model: Model) -> None:
    """Raise ValueError if a row that fits the context may not fit the KV cache: no answer depends on the machine."""
    cache, n_ctx = model.engine.cache, model.config.n_ctx
    wanted, limit = n_ctx * cache.position_bytes, cache.n_pages * cache.page_bytes
    if limit < wanted:
        raise ValueError(
            f"a whole context of {n_ctx} tokens takes {wanted} bytes of keys and values, and kv_memory of a worker is "
            f"{limit}: give it at least that"
        )


def identity_of(weights: Weights, kv_dtype: str) -> dict[str, Any]:
    """What names a model in a manifest."""
    return {
        "name": weights.name,
        "dtype": weights.dtype,
        "kv_dtype": kv_dtype,
        "fingerprint": fingerprint(weights, cache=kv_dtype),
        "bos": weights.bos,
        "labels": weights.labels,
        "head": None if weights.head is None else _digest(weights.head),
    }


def _digest(head: ClassifierHead) -> str:
    """Of a classifier's head, in hexadecimal digits: equal if it gives equal probabilities for equal hidden states."""
    digest = hashlib.sha256(json.dumps([head.labels, head.multi_label, head.layer, head.pooling]).encode())
    for array in (head.mean, head.scale, head.coefficients, head.intercept):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class Worker:
    """Reads shards, asks a model, and returns their answers as lines of JSON."""

    def __init__(self, answers: Answers, job: Job, table: Table) -> None:
        self._answers, self._job, self._table = answers, job, table
        self._asker = Asker(job)

    def run(
        self, shards: Iterable[Shard], progress: Callable[[Answer], object] = lambda answer: None
    ) -> Iterator[Finished]:
        """Answer shards, as they are finished.

        Rows of the next shard begin while the last rows of this one end, so that no place is empty.

        Args:
            shards: in the order in which they are begun.
            progress: called with each answer.
        """
        pending: dict[int, _Pending] = {}

        def note(answer: Answer) -> None:
            number = answer.row.number
            one = next(one for one in pending.values() if 0 <= number - one.shard.first_row < one.shard.n_rows)
            one.answers[number] = answer
            progress(answer)

        todo, is_over = iter(shards), False

        def questions() -> Iterator[Question]:
            nonlocal is_over
            for shard in todo:
                pending[shard.number] = _Pending(shard)
                asked = self._questions(shard, note)
                yield from asked
                if not asked:  # no answer comes that would end it
                    return
            is_over = True

        while not is_over:
            for answer in self._answers.answers(questions()):
                note(answer)
                yield from self._completed(pending)
            yield from self._completed(pending)

    def _questions(self, shard: Shard, note: Callable[[Answer], object]) -> list[Question]:
        """The questions of a shard, long ones first; rows that have none are noted."""
        asked = []
        for row in rows_of(self._table, shard):
            try:
                asked.append(self._asker.question(row, shard.repeats.get(row.number, 0)))
            except ValueError as error:
                note(Answer(row, error=str(error)))
        return sorted(asked, key=lambda question: -question.size)

    def _completed(self, pending: dict[int, _Pending]) -> Iterator[Finished]:
        for one in [one for one in pending.values() if one.is_complete]:
            del pending[one.shard.number]
            yield self._finished(one)

    def _finished(self, pending: _Pending) -> Finished:
        answers = [pending.answers[number] for number in sorted(pending.answers)]
        good = [self._line(answer) for answer in answers if not answer.error]
        bad = [answer for answer in answers if answer.error]
        first = f"{bad[0].row.place}: {bad[0].error}" if bad else ""
        return Finished(
            pending.shard.number,
            _lines(good),
            _lines(map(self._error_line, bad)),
            len(answers),
            len(bad),
            first,
            sum(answer.prompt_tokens for answer in answers),
            sum(answer.new_tokens for answer in answers),
        )

    def _line(self, answer: Answer) -> dict[str, Any]:
        if self._job.is_openai:
            return answer.fields
        return {**answer.row.columns, self._job.answer: answer.fields}

    def _error_line(self, answer: Answer) -> dict[str, Any]:
        row, name = answer.row, self._asker.id_of(answer.row)
        if self._job.is_openai:
            return answer.fields or failure(row.place, answer.error, name)
        return {"file": row.file, "line": row.line, **({} if name is None else {"id": name}), "reason": answer.error}


def _lines(objects: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in objects).encode()
