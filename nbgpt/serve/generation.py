"""From the body of a request to a group: its options checked, its prompts encoded, its writers in the queue."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from ..tasks.chat_template import ChatTemplate
from ..text.options import OPTIONS, parse
from ..text.prompts import Text, is_one, new_writers
from ..text.stream import Writer
from .errors import ApiError, error_of
from .limits import Limits
from .metrics import Metrics
from .schemas import GenerationFields, given
from .served import Models, Served
from .worker import TextGroup, Worker

_Result = TypeVar("_Result")
_LONG = 4096
"""Characters of prompts that are encoded in the loop's own thread; what takes longer goes to another."""


@dataclass
class Server:
    """What the routes of an application share."""

    models: Models
    worker: Worker
    limits: Limits
    metrics: Metrics
    chat_template: ChatTemplate | None
    executor: ThreadPoolExecutor
    grammar_executor: ThreadPoolExecutor
    """Apart, since a grammar that is given up keeps its thread until it is compiled."""

    def stop(self) -> None:
        """Cancel what is open."""
        self.worker.stop()
        for executor in (self.executor, self.grammar_executor):
            executor.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, work: Callable[[], _Result]) -> _Result:
        """Do what takes a while beside the loop. Raises what the work does."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)

    async def compile(self, work: Callable[[], _Result]) -> _Result:
        """Do what compiles a grammar. Raises ApiError if it takes too long, else what the work does."""
        compiled = asyncio.get_running_loop().run_in_executor(self.grammar_executor, work)
        try:
            return await asyncio.wait_for(compiled, self.limits.grammar_seconds)
        except asyncio.TimeoutError:
            raise ApiError(400, f"the grammar took more than {self.limits.grammar_seconds:g} s to compile") from None

    async def read(self, work: Callable[[], _Result]) -> _Result:
        """Let a model read a client's texts, beside the loop. Raises ApiError."""
        try:
            return await self.in_thread(work)
        except Exception as error:
            raise error_of(error) from None


@dataclass
class Generation:
    """A group, and the number of samples of each prompt that its answer has."""

    served: Served
    group: TextGroup
    n_samples: int
    n: int


async def begin(
    server: Server,
    body: GenerationFields,
    prompts: list[Text],
    options: Mapping[str, Any],
    best_of: int | None = None,
) -> Generation:
    """Begin to continue prompts.

    options: those of `Model.generate`, as `options_of` has them, and what the route adds.
    Raises ApiError for what the model cannot do, and when the queue is full.
    """
    served, n = server.models.find(body.model), body.n or 1
    n_samples = best_of or n
    if n_samples < n:
        raise ApiError(400, f"best_of is {best_of}; it must be at least n, {n}", param="best_of")
    if n_samples > n and body.stream:
        raise ApiError(400, "best_of cannot be streamed: the best texts are known at the end", param="best_of")
    if not 1 <= len(prompts) * n_samples <= server.limits.max_texts:
        message = f"{len(prompts)} prompts x {n_samples} texts; from 1 to {server.limits.max_texts} in all"
        raise ApiError(400, message, param="n" if prompts else "prompt")
    if n_samples > n:
        options = {"logprobs": 0, **options}

    def write() -> list[Writer]:
        engine, tokenizer = served.model.engine, served.model.tokenizer
        params, asked = parse(tokenizer, options)
        return [
            writer
            for prompt in prompts
            for writer in new_writers(engine, tokenizer, prompt, params, asked, n=n_samples)
        ]

    try:
        writers = await _written(server, write, prompts, options)
    except (ValueError, TypeError) as error:
        raise _refused(error, body) from None
    except ImportError as error:
        raise ApiError(400, str(error)) from None
    group = TextGroup(served.model.engine, writers, bool(body.stream))
    server.worker.submit(group)
    return Generation(served, group, n_samples, n)


async def _written(
    server: Server, write: Callable[[], list[Writer]], prompts: list[Text], options: Mapping[str, Any]
) -> list[Writer]:
    """Make the writers here if that is quick, else in another thread; a grammar has a time limit."""
    if not _FORMS.keys().isdisjoint(options):
        return await server.compile(write)
    return write() if sum(map(len, prompts)) <= _LONG else await server.in_thread(write)


def _refused(error: Exception, body: GenerationFields) -> ApiError:
    """Messages about an option, or about the prompt, name it before they say what it is or has."""
    message = str(error)
    subject = re.split(" is | has |:", message, maxsplit=1)[0].split()
    name = next((word for word in subject if word in OPTIONS or word == "prompt"), None)
    code = "context_length_exceeded" if "this model's context is" in message else None
    return ApiError(400, message, param=name and _field(body, name), code=code)


def _field(body: GenerationFields, option: str) -> str:
    """The field of a body in which an option of `Model.generate` came."""
    if option == "json_schema" and body.guided_json is None:
        return "response_format"
    if option == "prompt" and "messages" in type(body).model_fields:
        return "messages"
    return _FORMS.get(option, option)


def prompts_of(prompt: Any) -> list[Text]:
    """One prompt or several, as a list. Raises ApiError for what JSON can write and UTF-8 cannot."""
    prompts = [prompt] if is_one(prompt) else list(prompt)
    try:
        for text in prompts:
            if isinstance(text, str):
                text.encode()
    except UnicodeEncodeError as error:
        raise ApiError(400, f"a text has half of a surrogate pair at {error.start}, which is no character") from None
    return prompts


_FORMS = {"choice": "guided_choice", "regex": "guided_regex", "json_schema": "guided_json"}
"""Fields for the form of a text, by the options of `Model.generate`."""


def options_of(body: GenerationFields, limits: Limits) -> dict[str, Any]:
    """The options of `Model.generate` that a body asks for. Raises ApiError for those beyond the limits."""
    options = dict(given(body))
    grammar = _grammar(body)
    size = max(
        (len(value) if isinstance(value, str) else len(json.dumps(value)) for value in grammar.values()), default=0
    )
    if size > limits.max_grammar:
        name = _field(body, next(iter(grammar)))
        raise ApiError(400, f"{name} has {size} characters; at most {limits.max_grammar}", param=name)
    if body.logit_bias is not None:
        options["logit_bias"] = _bias(body.logit_bias)
    stops = [body.stop] if isinstance(body.stop, (str, int)) else body.stop or []
    longest = max((len(stop) for stop in stops if isinstance(stop, str)), default=0)
    if len(stops) > limits.max_stops or longest > limits.max_stop_length:
        message = f"stop has {len(stops)} texts of up to {longest} characters; at most {limits.max_stops} of "
        raise ApiError(400, message + str(limits.max_stop_length), param="stop")
    options["max_time"] = min(options.get("max_time", limits.timeout), limits.timeout)
    return options | grammar


def check_logprobs(n: int | None, limits: Limits) -> None:
    """Raise ApiError for more than the server gives."""
    if n is not None and n > limits.max_logprobs:
        raise ApiError(400, f"logprobs is {n}; at most {limits.max_logprobs}", param="logprobs")


def _grammar(body: GenerationFields) -> dict[str, Any]:
    """The one form that the text must have, by its option; nothing if it is free."""
    asked = [(name, form) for name, field in _FORMS.items() if (form := getattr(body, field)) is not None]
    if body.response_format and body.response_format.type == "json_object":
        asked.append(("json_schema", True))
    if body.response_format and body.response_format.type == "json_schema":
        try:
            asked.append(("json_schema", (body.response_format.json_schema or {})["schema"]))
        except KeyError:
            raise ApiError(400, "response_format.json_schema has no schema", param="response_format") from None
    if len(asked) > 1:
        message = "more than one of guided_json, guided_regex, guided_choice and response_format; choose one"
        raise ApiError(400, message, param=_field(body, asked[0][0]))
    return dict(asked)


def _bias(given: Mapping[str, float]) -> dict[int, float]:
    try:
        return {int(token): bias for token, bias in given.items()}
    except ValueError as error:
        raise ApiError(400, f"logit_bias: its keys must be token ids ({error})", param="logit_bias") from None
