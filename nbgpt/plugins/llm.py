"""Plugin for the command line tool `llm`: every model on this machine as `llm -m nbgpt/NAME "..."`.

`llm` finds it by its entry point once both are installed: `pip install "nbgpt[llm]"`. A schema (`llm --schema`) needs
`nbgpt[constrain]` too. `llm embed -m nbgpt/NAME` makes the vectors of `Model.embed`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import llm
from llm.parts import TextPart
from pydantic import Field

from ..conversion.registry import find, known
from ..model import Model, load
from ..sampling.logprobs import TokenLogprob
from ..text.aio import pieces_of
from ..text.stream import Stream


@llm.hookimpl
def register_models(register: Any) -> None:
    """Register each native file that `--model NAME` would find, for threads and for asyncio."""
    for name in _names():
        register(NbgptModel(name), NbgptAsyncModel(name))


@llm.hookimpl
def register_embedding_models(register: Any) -> None:
    """Register the same models as makers of vectors."""
    for name in _names():
        register(NbgptEmbeddingModel(name))


def _names() -> list[str]:
    return [name for name in known() if find(name)]


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
    logprobs: int | None = Field(
        None, description="log-probabilities of the tokens and of the N likeliest, in the response's JSON"
    )


class _Named:
    """What the models for threads and for asyncio share.

    The conversation is one text, which the model continues. GPT-2 does not follow instructions: the text of `--system`
    is a paragraph of its own at the beginning. The text of a schema fits it, as far as max_tokens lets it come.
    """

    can_stream = True
    supports_schema = True
    Options = NbgptOptions

    def __init__(self, name: str) -> None:
        self.name = name
        self.model_id = f"nbgpt/{name}"

    def _begin(self, prompt: Any) -> Stream:
        """The stream that answers a prompt; encoding it, or loading the model, may take time."""
        text = "".join(_text_of(message) for message in prompt.messages)
        options = {name: value for name, value in prompt.options.model_dump().items() if value is not None}
        if prompt.schema:
            options["json_schema"] = _closed(prompt.schema)
        begun: Stream = _loaded(self.name).stream(text, overflow="truncate_left", **options)
        return begun

    def _record(self, response: Any, stream: Stream) -> None:
        """Give the response its usage and its JSON: why the text ended, its seed, and log-probabilities if asked."""
        done = stream.completion
        response.set_usage(input=done.usage.prompt_tokens, output=done.usage.completion_tokens)
        response.response_json = {"finish_reason": done.finish_reason, "seed": done.seed}
        if done.logprobs is not None:
            decode = _loaded(self.name).tokenizer.decode
            response.response_json["logprobs"] = [_as_json(one, decode) for one in done.logprobs]


class NbgptModel(_Named, llm.Model):
    """A GPT-2 as a model of llm."""

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """Pieces of the continuation. Raises llm.ModelError for errors of nbgpt."""
        with _model_errors():
            pieces = self._begin(prompt)
            yield from pieces
        self._record(response, pieces)


class NbgptAsyncModel(_Named, llm.AsyncModel):
    """A GPT-2 as a model of llm for asyncio: a thread runs it."""

    async def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> AsyncGenerator[str, None]:
        """Pieces of the continuation. Raises llm.ModelError for errors of nbgpt."""
        with _model_errors():
            begun = await asyncio.to_thread(self._begin, prompt)
            async with aclosing(pieces_of(begun)) as pieces:
                async for piece in pieces:
                    yield piece
        self._record(response, begun)


class NbgptEmbeddingModel(llm.EmbeddingModel):
    """A GPT-2 as a maker of vectors: the mean of a text's hidden states, of length 1."""

    batch_size = 64

    def __init__(self, name: str) -> None:
        self.name = name
        self.model_id = f"nbgpt/{name}"

    def embed_batch(self, items: Iterable[str | bytes], *, key: str | None = None) -> Iterator[list[float]]:
        """A vector [n_embd] of each text. Raises llm.ModelError for errors of nbgpt, as for a text that is too long."""
        texts = [item for item in items if isinstance(item, str)]  # llm refuses bytes before
        with _model_errors():
            yield from _loaded(self.name).embed(texts).tolist()


@contextmanager
def _model_errors() -> Iterator[None]:
    """Turn errors of nbgpt into the one that llm shows in a line."""
    try:
        yield
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        raise llm.ModelError(str(error)) from error


def _closed(schema: Any) -> Any:
    """A schema whose objects have the properties that they name and no others, unless it says that they may.

    A small model would add property after property, until max_tokens cuts the text.
    """
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if schema.get("type") == "object" and "properties" in schema else {}
    return {**closed, **{name: _closed(value) for name, value in schema.items()}}


def _as_json(one: TokenLogprob, decode: Any) -> dict[str, Any]:
    top = [{"id": i, "text": decode([i]), "logprob": logprob} for i, logprob in one.top.items()]
    return {"id": one.token, "text": one.text, "logprob": one.logprob, "top": top}


def _text_of(message: Any) -> str:
    text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
    return f"{text}\n\n" if message.role == "system" else text


@functools.cache
def _loaded(name: str) -> Model:
    return load(name)
