"""What is asked of every row of a run: the task, its options, and how a row becomes a prompt. Nothing of a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .prompts import MakePrompt, prompt_maker
from .row import ColumnError, Row, id_of, key_of, named, seed_of

TASKS = ("generate", "score", "embed", "classify", "rank", "choices")
OPENAI = "openai"
"""The task of a file in OpenAI's batch format: each row names its route."""
_OPENAI_COLUMNS = {"custom_id", "method", "url", "body"}
DEFAULT_ANSWER = "answer"


@dataclass(frozen=True)
class Job:
    """A run but for its input and its model. Equal jobs give a row the same answer."""

    task: str = "generate"
    prompt: str | None = None  # a text with {columns}
    template: str | None = None  # the source of a Jinja template
    id: str | None = None  # the column of the rows' ids
    answer: str = DEFAULT_ANSWER  # the column that the answer comes in
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)  # of the task
    chat_template: str | None = None  # "plain" or the source of a Jinja template, for OpenAI's chats

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @property
    def is_openai(self) -> bool:
        """True for OpenAI's batch format, whose answers have that form too."""
        return self.task == OPENAI


@dataclass(frozen=True)
class Question:
    """A row, and what the model is asked about it."""

    row: Row
    prompt: str
    seed: int
    size: int  # in characters: how much work it is, compared with others


@dataclass(frozen=True)
class Answer:
    """What a row has been answered, or why it was not."""

    row: Row
    fields: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    prompt_tokens: int = 0
    new_tokens: int = 0


def is_openai(row: Row) -> bool:
    """True for a row of OpenAI's batch format."""
    return row.columns.keys() >= _OPENAI_COLUMNS


class Asker:
    """Makes questions of rows."""

    def __init__(self, job: Job) -> None:
        """Raises ValueError for a template that is none."""
        self._job = job
        self._prompt: MakePrompt = prompt_maker(job.prompt, job.template)

    def question(self, row: Row, repeat: int) -> Question:
        """The question of a row.

        Args:
            row: the row.
            repeat: its number among equal rows.

        Raises:
            ColumnError: it has not the columns that the job needs.
            ValueError: it is no row, or what its columns hold is of no use.
        """
        job = self._job
        if row.error:
            raise ValueError(row.error)
        seed = seed_of(job.seed, key_of(row, job.id), repeat)
        if job.is_openai:
            if not is_openai(row):
                raise ValueError(f"a request has {', '.join(sorted(_OPENAI_COLUMNS))}; this has {named(row.columns)}")
            return Question(row, "", seed, len(row.content))
        if job.answer in row.columns:
            raise ColumnError(f"it has a column {job.answer!r}, in which its answer would come: --answer names another")
        prompt = self._prompt(row.columns)
        return Question(row, prompt, seed, len(prompt))

    def id_of(self, row: Row) -> str | None:
        """The row's id, if it has one."""
        if self._job.id is None or row.error:
            return None
        try:
            return id_of(row, self._job.id)
        except ValueError:
            return None
