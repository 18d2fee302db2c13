"""From the deltas of a group to answers: whole, or as server-sent events while the text is made."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from ..sampling.logprobs import TokenLogprob
from .errors import error_of
from .generation import Generation, Server
from .schemas import GenerationFields
from .worker import Delta

_to_json = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder for every token


class Shape(Protocol):
    """How an API lays out a choice."""

    whole_object: str
    chunk_object: str
    id_prefix: str

    def choice(self, text: str, logprobs: list[TokenLogprob] | None) -> dict[str, Any]:
        """The fields of a whole text."""
        ...

    def delta(self, text: str, logprobs: list[TokenLogprob] | None, is_first: bool, offset: int) -> dict[str, Any]:
        """The fields of a part of a text, which begins with the given character."""
        ...


def head_of(generation: Generation, shape: Shape, is_chunk: bool) -> dict[str, Any]:
    """The fields that all answers begin with."""
    return {
        "id": shape.id_prefix + uuid.uuid4().hex,
        "object": shape.chunk_object if is_chunk else shape.whole_object,
        "created": int(time.time()),
        "model": generation.served.name,
        "system_fingerprint": generation.served.fingerprint,
    }


def usage_of(generation: Generation) -> dict[str, int]:
    """Tokens of the prompts, each counted once, and of all samples."""
    requests = [writer.request for writer in generation.group.writers]
    n_prompt = sum(len(request.prompt) for request in requests[:: generation.n_samples])
    n_new = sum(len(request.tokens) for request in requests)
    return {"prompt_tokens": n_prompt, "completion_tokens": n_new, "total_tokens": n_prompt + n_new}


def note(scope: Scope, generation: Generation) -> None:
    """Leave facts for the log: no text is among them."""
    first = generation.group.timings[0]
    facts = {"model": generation.served.name, "texts": len(generation.group.writers), **usage_of(generation)}
    if first.first_token:
        facts["first_token_seconds"] = round(first.first_token - first.arrived, 4)
    scope["nbgpt.facts"] = facts


async def watch(receive: Receive, generation: Generation) -> None:
    """End the texts when the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    generation.group.cancel()


async def answer(
    server: Server, request: Request, body: GenerationFields, generation: Generation, shape: Shape, has_logprobs: bool
) -> Response:
    """The answer to a request, whole or as a stream."""
    if not body.stream:
        return await whole(server, request, generation, shape, has_logprobs)
    has_usage = body.stream_options is not None and body.stream_options.include_usage
    return EventStream(server, generation, shape, has_logprobs, has_usage)


async def whole(server: Server, request: Request, generation: Generation, shape: Shape, has_logprobs: bool) -> Response:
    """The answer to a request that does not stream."""
    texts = [""] * len(generation.group.writers)
    reasons: dict[int, str | None] = {}
    watching = asyncio.ensure_future(watch(request.receive, generation))
    deadline = asyncio.get_running_loop().call_later(server.limits.timeout, generation.group.expire)
    try:
        async for deltas in generation.group.deltas():
            for delta in deltas:
                texts[delta.index] += delta.text
                reasons[delta.index] = delta.finish_reason
    except Exception as error:
        raise error_of(error) from None
    finally:
        note(request.scope, generation)
        generation.group.cancel()
        deadline.cancel()
        watching.cancel()
    choices = [
        shape.choice(texts[index], writer.logprobs if has_logprobs else None)
        | {"index": place, "finish_reason": reasons[index], "seed": writer.request.params.seed}
        for place, index in enumerate(_best(generation))
        for writer in [generation.group.writers[index]]
    ]
    return JSONResponse({**head_of(generation, shape, False), "choices": choices, "usage": usage_of(generation)})


def _best(generation: Generation) -> list[int]:
    """The writers that are answered: of each prompt the n whose tokens are the likeliest on average."""
    writers, step = generation.group.writers, generation.n_samples
    if generation.n == step:
        return list(range(len(writers)))

    def mean(index: int) -> float:
        logprobs = [one.logprob for one in writers[index].logprobs if one.logprob is not None]
        return sum(logprobs) / max(1, len(logprobs))

    groups = (range(start, start + step) for start in range(0, len(writers), step))
    return [index for group in groups for index in sorted(group, key=mean, reverse=True)[: generation.n]]


class EventStream(Response):
    """Server-sent events; all that is ready leaves in one write, and a client that does not take it is cut off."""

    media_type = "text/event-stream"

    def __init__(
        self, server: Server, generation: Generation, shape: Shape, has_logprobs: bool, has_usage: bool
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._server, self._generation, self._shape = server, generation, shape
        self._has_logprobs, self._has_usage = has_logprobs, has_usage
        self._writing_since: float | None = None
        self._has_given_up = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by ASGI's protocol."""
        group, loop = self._generation.group, asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        watching = [asyncio.ensure_future(watch(receive, self._generation)), asyncio.ensure_future(self._watch(task))]
        deadline = loop.call_later(self._server.limits.timeout, group.expire)

        async def write(message: Message) -> None:
            self._writing_since = loop.time()
            await send(message)
            self._writing_since = None

        try:
            await write({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for events in self._events():
                await write({"type": "http.response.body", "body": events, "more_body": True})
            await write({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            if not self._has_given_up:
                raise
        finally:
            note(scope, self._generation)
            group.cancel()
            deadline.cancel()
            for one in watching:
                one.cancel()

    async def _watch(self, task: asyncio.Task[Any]) -> None:
        """Cancel the task when a write has waited too long for its client. One timer a stream: not one a token."""
        limit, loop = self._server.limits.client_timeout, asyncio.get_running_loop()
        while True:
            now = loop.time()
            since = now if self._writing_since is None else self._writing_since
            if now - since >= limit:
                break
            await asyncio.sleep(since + limit - now)
        self._has_given_up = True
        task.cancel()

    async def _events(self) -> AsyncIterator[bytes]:
        head = _to_json(head_of(self._generation, self._shape, True))[:-1]
        null_usage = ', "usage": null' if self._has_usage else ""
        offsets: dict[int, int] = {}
        try:
            async for deltas in self._generation.group.deltas():
                parts = [
                    f'data: {head}, "choices": [{self._choice(delta, offsets)}]{null_usage}}}\n\n' for delta in deltas
                ]
                yield "".join(parts).encode()
        except Exception as error:
            yield f"data: {json.dumps(error_of(error).body())}\n\n".encode()
            return
        if self._has_usage:
            usage = json.dumps(usage_of(self._generation))
            yield f'data: {head}, "choices": [], "usage": {usage}}}\n\n'.encode()
        yield b"data: [DONE]\n\n"

    def _choice(self, delta: Delta, offsets: dict[int, int]) -> str:
        """A choice as JSON; offsets: how many characters the tokens of each text have so far."""
        is_first, offset = delta.index not in offsets, offsets.get(delta.index, 0)
        offsets[delta.index] = offset + sum(len(one.text) for one in delta.logprobs)  # stop strings hold text back
        fields = {"index": delta.index, "finish_reason": delta.finish_reason}
        fields |= self._shape.delta(delta.text, delta.logprobs if self._has_logprobs else None, is_first, offset)
        if is_first:
            fields["seed"] = self._generation.group.writers[delta.index].request.params.seed
        return _to_json(fields)


def openai_token(octets: bytes) -> str:
    """A token alone, as OpenAI shows it: bytes that are no character stand in hexadecimal after `bytes:`."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in octets)
