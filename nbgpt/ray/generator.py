"""`Generator`: a class for `map_batches` of own pipelines on Ray Data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..batch.job import DEFAULT_ANSWER, Answer, Asker, Job, Question
from ..batch.row import row_of
from ..batch.table import as_json
from ..batch.worker import answers_of
from ..engine.kv_cache import KVDtype
from ..model import load

if TYPE_CHECKING:
    import pyarrow


class Generator:
    """Answers every row of a dataset, with a model that each actor loads once.

    >>> dataset.map_batches(
    ...     nbgpt.ray.Generator,
    ...     fn_constructor_kwargs={"prompt": "Summarize: {text}", "max_tokens": 50},
    ...     batch_size=256, num_cpus=4, concurrency=8,
    ... )  # doctest: +SKIP

    A row's answer is a function of the row, the model and these arguments: its seed is made of its id, or else of its
    content, so that equal rows are answered alike.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        task: str = "generate",
        prompt: str | None = None,
        template: str | None = None,
        id: str | None = None,
        answer: str = DEFAULT_ANSWER,
        seed: int = 0,
        dtype: str | None = None,
        threads: int | None = None,
        kv_dtype: KVDtype = "float32",
        kv_memory: int | None = None,
        batch_size: int = 32,
        **options: Any,
    ) -> None:
        """Load the model.

        Args:
            model: as for `nbgpt.load`, on every node; so are dtype, threads, kv_dtype and kv_memory.
            task: generate, score, embed, classify, rank or choices.
            prompt: what is asked, with {columns}; None: the column prompt, else text.
            template: the source of a Jinja template instead.
            id: the column of the rows' ids.
            answer: the column that is added: a struct, whose field `error` says why a row has no answer.
            seed: of the run.
            dtype: as for `nbgpt.load`.
            threads: as for `nbgpt.load`; give what num_cpus of `map_batches` is.
            kv_dtype: as for `nbgpt.load`.
            kv_memory: as for `nbgpt.load`.
            batch_size: texts that grow together.
            options: of the task, as of `Model.generate`.

        Raises:
            ValueError: an option is out of range.
            TypeError: an option does not exist.
        """
        self._job = Job(task, prompt, template, id, answer, seed, options)
        self._asker = Asker(self._job)
        self._answers = answers_of(load(model, dtype, threads, kv_dtype, kv_memory), self._job, batch_size)

    def __call__(self, batch: Mapping[str, Any]) -> pyarrow.Table:
        """The batch, arrays by column, with the answers as another column."""
        import pyarrow

        table = pyarrow.table({name: _column(values) for name, values in batch.items()})
        answered: dict[int, Answer] = {}
        questions: list[Question] = []
        for number, values in enumerate(table.to_pylist()):
            row = row_of(number, "batch", number, {name: as_json(value) for name, value in values.items()})
            try:
                questions.append(self._asker.question(row, 0))
            except ValueError as error:
                answered[number] = Answer(row, error=str(error))
        questions.sort(key=lambda question: -question.size)
        answered |= {answer.row.number: answer for answer in self._answers.answers(iter(questions))}
        found = [{**answered[number].fields, "error": answered[number].error or None} for number in sorted(answered)]
        return table.append_column(self._job.answer, pyarrow.array(found, _type_of(self._job.task)))


def _column(values: Any) -> pyarrow.Array:
    """An array as Arrow has it, of the same type; one of more than one dimension as lists."""
    import pyarrow

    if getattr(values, "ndim", 1) == 1:
        return pyarrow.array(values)
    column = pyarrow.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        column = pyarrow.FixedSizeListArray.from_arrays(column, size)
    return column


def _type_of(task: str) -> pyarrow.DataType:
    """The type of a task's answers, which is that of every batch, whatever is in it."""
    import pyarrow

    text, whole, number = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    by_name = pyarrow.map_(text, number)
    ranked = pyarrow.list_(pyarrow.struct({"choice": text, "logprob": number}))
    counts = dict.fromkeys(("prompt_tokens", "completion_tokens", "seed"), whole)
    lists = {"tokens": pyarrow.list_(whole), "texts": pyarrow.list_(text), "logprobs": pyarrow.list_(number)}
    fields = {
        "generate": {"text": text, "finish_reason": text, **counts},
        "score": {"total": number, "mean": number, **lists},
        "embed": {"embedding": pyarrow.list_(number)},
        "classify": {"label": text, "probabilities": by_name},
        "rank": {"ranked": ranked},
        "choices": {"choice": text, "probabilities": by_name},
    }
    return pyarrow.struct({**fields[task], "error": text})
