"""A run: from the input to the output, in shards, whoever works on them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..formats import FormatError
from ..model import Model
from ..partial import whole_file
from ..progress import progress_bar
from .index import CHANGED, Index, Shard, build
from .job import OPENAI, Asker, Job, is_openai
from .output import Output
from .progress import Progress, Summary
from .row import ColumnError, Row
from .table import Table, files_of
from .worker import Finished, Worker, answers_of, identity_of

STANDARD_INPUT = "-"
SHARD_ROWS = 512
BATCH_SIZE = 64


class Runner(Protocol):
    """Works on shards: in this process, in several, or on a cluster."""

    @property
    def model(self) -> dict[str, Any]:
        """What names the model: equal if its answers are."""
        ...

    def check(self, job: Job) -> None:
        """Raise ValueError, TypeError or ImportError for a job that the model cannot do."""
        ...

    def run(self, job: Job, table: Table, shards: Iterator[Shard], progress: Progress) -> Iterator[Finished]:
        """Work on shards -> each as it is finished."""
        ...


class InProcess:
    """Works on shards with a model of this process."""

    def __init__(self, model: Model, batch_size: int) -> None:
        self._model, self._batch_size = model, batch_size
        self.model = identity_of(model.weights, model.engine.cache.dtype)

    def check(self, job: Job) -> None:
        """Raise ValueError, TypeError or ImportError for a job that the model cannot do."""
        answers_of(self._model, job, self._batch_size)

    def run(self, job: Job, table: Table, shards: Iterator[Shard], progress: Progress) -> Iterator[Finished]:
        """Work on shards -> each as it is finished."""
        return Worker(answers_of(self._model, job, self._batch_size), job, table).run(shards, progress.note)


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where a run reads and writes, and how it is cut."""

    source: str  # a file, a folder, or - for standard input
    output: Path
    form: str | None = None  # of the source; None: by its ending, of standard input JSON lines
    part: int = 0  # of `n_parts` into which the rows are divided, each with an output of its own
    n_parts: int = 1
    shard_rows: int = SHARD_ROWS
    overwrite: bool = False

    def out(self) -> Output:
        """The output of this part. Raises ValueError, OSError."""
        if self.n_parts == 1:
            return Output(self.output)
        name = f"{self.output.stem}-{self.part:05}-of-{self.n_parts:05}{self.output.suffix}"
        return Output(self.output.with_name(name))


def run(
    files: Files,
    job: Job,
    runner: Runner,
    max_errors: int | None = None,
    publish: Callable[[Summary], object] | None = None,
) -> tuple[Summary, Output]:
    """Answer every row of the input that no earlier run has answered, and write the output.

    Args:
        files: where to read and to write.
        job: what is asked.
        runner: works on the shards.
        max_errors: the run ends when more rows than that could not be answered; None: never.
        publish: is given the state of the run every few seconds.

    Raises:
        ValueError: the job does not fit the rows, or the output is of another run.
        FormatError: the input is no table, or there were too many errors.
        OSError: a file cannot be read or written. What is finished stays; the next run goes on from it.
    """
    output = files.out()
    with output.locked():
        table = _table(files, output)
        stamps = table.stamps()
        index, job = _indexed(table, files, job)
        runner.check(job)
        rows = range(*(index.n_rows * part // files.n_parts for part in (files.part, files.part + 1)))
        numbers = index.shards(rows)
        if files.overwrite:
            output.clear()
        was_done = output.begin(_identity(files, job, runner, index), numbers)
        summary = _begun(index, rows, output)
        if not was_done:
            _check_errors("", output, max_errors)
            todo = (index.shard(number, rows) for number in numbers if number not in output.done)
            with Progress(summary, publish) as progress:
                for finished in runner.run(job, table, todo, progress):
                    if table.stamps() != stamps:
                        raise FormatError(f"{files.source}: {CHANGED}")
                    output.keep(finished)
                    summary.failed = output.n_failed
                    _check_errors(finished.first_error, output, max_errors)
            output.join()
        return summary, output


def _identity(files: Files, job: Job, runner: Runner, index: Index) -> dict[str, Any]:
    """What must be equal for a run to go on."""
    return {
        "job": job.to_dict(),
        "model": runner.model,
        "input": {"rows": index.n_rows, "digest": index.digest},
        "shard": f"{files.part}/{files.n_parts}",
        "shard_rows": files.shard_rows,
    }


def _table(files: Files, output: Output) -> Table:
    """The input as a table; standard input is kept in a file first, so that it can be read twice."""
    if files.source == STANDARD_INPUT:
        if sys.stdin is None:
            raise ValueError("standard input is closed: name a file, or give the rows on standard input")
        with whole_file(output.spool) as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return Table([output.spool], files.form or "jsonl", "standard input")
    source = Path(files.source)
    found = files_of(source)
    if source.is_dir() and output.path.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"--output {output.path} is in the folder of the input, {source}: put it elsewhere")
    output.refuse_input([source, *found])
    return Table(found, files.form)


def _indexed(table: Table, files: Files, job: Job) -> tuple[Index, Job]:
    """The index of the input, and the job as its first row makes it. Raises ValueError if they do not fit."""

    def id_column(first: Row) -> str | None:
        nonlocal job
        if is_openai(first):
            if job.prompt or job.template or job.id or job.options or job.task != "generate":
                raise ValueError("the input is in OpenAI's batch format, in which each row says what is asked of it")
            job = replace(job, task=OPENAI, id="custom_id")
        elif job.chat_template is not None:
            raise ValueError("--chat-template is given, and the input is not in OpenAI's batch format")
        asker = Asker(job)
        try:
            asker.question(first, 0)
        except ColumnError as error:
            raise ValueError(f"{first.place}: {error}") from None
        except ValueError:  # this row is a bad one
            pass
        return job.id

    with progress_bar("reading", "row") as bar:
        return build(table, files.shard_rows, id_column, bar.update), job


def _begun(index: Index, rows: range, output: Output) -> Summary:
    """What is done already."""
    resumed = sum(index.shard(number, rows).n_rows for number in index.shards(rows) if number in output.done)
    return Summary(rows=len(rows), resumed=resumed, failed=output.n_failed)


def _check_errors(first_error: str, output: Output, max_errors: int | None) -> None:
    """Raise FormatError if there are too many errors."""
    if max_errors is not None and output.n_failed > max_errors:
        raise FormatError(
            f"{output.n_failed} rows could not be answered, more than --max-errors {max_errors}; "
            + (f"one of them: {first_error}" if first_error else f"{output.parts} has their reasons")
        )
