"""The task `generate`: questions join the batch as others end, so that it is full until the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..model import Model
from ..text.options import parse
from ..text.prompts import new_writers
from ..text.stream import Writer
from .job import Answer, Question


@dataclass(eq=False)
class _Open:
    """A question whose text grows."""

    question: Question
    writer: Writer


class Generating:
    """Continues prompts, many at a time."""

    def __init__(self, model: Model, options: Mapping[str, Any], batch_size: int) -> None:
        """options: of `Model.generate`. Raises ValueError and TypeError as `parse`."""
        self._engine, self._tokenizer, self._batch_size = model.engine, model.tokenizer, batch_size
        self._params, self._asked = parse(model.tokenizer, {**options, "seed": 0})

    def answers(self, questions: Iterator[Question]) -> Iterator[Answer]:
        """The answers, as they come. A question is taken when there is a place for it."""
        growing: list[_Open] = []
        try:
            while True:
                while len(growing) < self._batch_size and (question := next(questions, None)):
                    try:
                        growing.append(_Open(question, self._begun(question)))
                    except ValueError as error:
                        yield Answer(question.row, error=str(error))
                if not growing:
                    return
                ended = self._step(growing)
                growing = [one for one in growing if one not in ended]
                yield from map(self._answer, ended)
        finally:
            self._engine.retire([one.writer.request for one in growing])

    def _begun(self, question: Question) -> Writer:
        """The writer of a question, waiting for its first step. Raises ValueError if its text cannot be."""
        params = replace(self._params, seed=question.seed)
        (writer,) = new_writers(self._engine, self._tokenizer, question.prompt, params, self._asked)
        self._engine.add(writer.request)
        return writer

    def _step(self, growing: list[_Open]) -> list[_Open]:
        """Let all texts grow by a step -> those that have ended."""
        self._engine.advance([one.writer.request for one in growing], lambda: False)
        ended = []
        for one in growing:
            error, is_ended = one.writer.request.error, one.writer.request.finish_reason
            if error is not None and not isinstance(error, ValueError):
                raise error
            if error is None and (is_ended or self._asked.stop):  # only stop strings need the text before its end
                one.writer.update()
            if error or one.writer.is_closed:
                ended.append(one)
        if ended:
            self._engine.retire([one.writer.request for one in ended])
        return ended

    def _answer(self, one: _Open) -> Answer:
        request, row = one.writer.request, one.question.row
        if request.error is not None:
            return Answer(row, error=str(request.error))
        n_prompt, n_new = len(request.prompt), len(request.tokens)
        fields = {
            "text": "".join(one.writer.text),
            "finish_reason": request.finish_reason,
            "prompt_tokens": n_prompt,
            "completion_tokens": n_new,
            "seed": one.question.seed,
        }
        return Answer(row, fields, "", n_prompt, n_new)
