"""Plugin for the command line tool `llm`: every model on this machine as `llm -m nbgpt/NAME "..."`.

`llm` finds it by its entry point once both are installed: `pip install "nbgpt[llm]"`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import llm
from llm.parts import TextPart
from pydantic import Field

from ..conversion.registry import find, known
from ..model import Model, load


@llm.hookimpl
def register_models(register: Any) -> None:
    """Register each native file that `--model NAME` would find."""
    for name in known():
        if find(name):
            register(NbgptModel(name))


class NbgptOptions(llm.Options):
    """Some options of `nbgpt.Model.generate`; the defaults are those of `generate`."""

    max_tokens: int | None = Field(None, description="how many new tokens at most")
    temperature: float | None = Field(None, description="above 1 wilder, below tamer, 0 greedy")
    top_k: int | None = Field(None, description="draw from the K likeliest tokens; 0: all")
    top_p: float | None = Field(None, description="draw from the likeliest tokens that have probability P together")
    min_p: float | None = Field(None, description="and from those of at least P times the likeliest's probability")
    repetition_penalty: float | None = Field(None, description="above 1: avoid what stands in the text")
    stop: str | None = Field(None, description="a text that ends it and is not written")
    seed: int | None = Field(None, description="the same seed gives the same text")


class NbgptModel(llm.Model):
    """A GPT-2 as a model of llm: the conversation is one text, which the model continues.

    GPT-2 does not follow instructions: the text of `--system` is a paragraph of its own at the beginning.
    """

    can_stream = True
    Options = NbgptOptions

    def __init__(self, name: str) -> None:
        self.name = name
        self.model_id = f"nbgpt/{name}"

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """Pieces of the continuation. Raises llm.ModelError for errors of nbgpt."""
        text = "".join(_text_of(message) for message in prompt.messages)
        options = {name: value for name, value in prompt.options.model_dump().items() if value is not None}
        try:
            pieces = _loaded(self.name).stream(text, **{"overflow": "truncate_left", **options})
            yield from pieces
        except (ValueError, OSError, RuntimeError) as error:
            raise llm.ModelError(str(error)) from error
        usage = pieces.completion.usage
        response.set_usage(input=usage.prompt_tokens, output=usage.completion_tokens)


def _text_of(message: Any) -> str:
    text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
    return f"{text}\n\n" if message.role == "system" else text


@functools.cache
def _loaded(name: str) -> Model:
    return load(name)
