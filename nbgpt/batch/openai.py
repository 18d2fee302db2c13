"""OpenAI's batch format: each row is a request to the server, and is answered by the server's own routes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..model import Model
from ..tasks.chat_template import PLAIN, ChatTemplate, jinja_template
from .job import Answer, Question
from .row import answer_id

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

ROUTES = ("/v1/completions", "/v1/chat/completions", "/v1/embeddings")
_SEEDED = ROUTES[:2]
_FOREVER = 1e9
"""Seconds: a text of a batch has no deadline."""
_GRAMMAR_PATIENCE = 12
"""A grammar may take so many times as long as the server allows, and not for ever: it would hold up the run."""
_TRANSIENT = (408, 429, 503)
"""Statuses that say something of the machine, and nothing of the row."""
_FAULT = 500
"""Of the server; if it comes again, of the row."""

Body = dict[str, Any]


class OpenAI:
    """Sends requests to the application that `python -m nbgpt serve` runs, without a network."""

    def __init__(self, model: Model, chat_template: str | None, batch_size: int) -> None:
        """chat_template: "plain", or the source of a Jinja template.

        Raises ValueError for a template that is none, and ImportError without FastAPI.
        """
        try:
            from ..serve.application import app
            from ..serve.limits import Limits
        except ImportError as error:
            raise ImportError(f'this format needs the package {error.name}: pip install "nbgpt[serve]"') from None
        limits = Limits(
            max_batch=batch_size,
            max_queue=Limits().max_texts * batch_size,
            timeout=_FOREVER,
            client_timeout=_FOREVER,
            grammar_seconds=_GRAMMAR_PATIENCE * Limits().grammar_seconds,
        )
        self._app: ASGIApp = app(model, limits=limits, chat_template=_template(chat_template))
        self._batch_size = batch_size

    def answers(self, questions: Iterator[Question]) -> Iterator[Answer]:
        """The answers, as they come. A question is taken when there is a place for it."""
        loop = asyncio.new_event_loop()
        open_: set[asyncio.Task[Answer]] = set()
        try:
            while True:
                while len(open_) < self._batch_size and (question := next(questions, None)):
                    open_.add(loop.create_task(self._answer(question)))
                if not open_:
                    return
                ended, open_ = loop.run_until_complete(asyncio.wait(open_, return_when=asyncio.FIRST_COMPLETED))
                for task in ended:
                    yield task.result()
        finally:
            for task in open_:
                task.cancel()
            if open_:
                loop.run_until_complete(asyncio.wait(open_))
            loop.close()

    async def _answer(self, question: Question) -> Answer:
        row = question.row
        name = answer_id(question.seed)
        body = _body(question)
        if _has_form(body) and not find_spec("llguidance"):  # another machine would answer this row
            raise ImportError(f'{row.place} needs the package llguidance: pip install "nbgpt[constrain]"')
        if isinstance(body, str):
            status, answered = 400, _refusal(body)
        else:
            status, answered = await _post(self._app, row.columns["url"], body)
            if status == _FAULT:
                status, answered = await _post(self._app, row.columns["url"], body)
        if status in _TRANSIENT:
            raise OSError(f"{row.place}: {answered.get('error', {}).get('message', status)}")
        response = {"status_code": status, "request_id": name, "body": _timeless(answered, name)}
        fields = {"id": f"batch_req_{name}", "custom_id": row.columns["custom_id"], "response": response, "error": None}
        usage = answered.get("usage", {})
        error = "" if status < 400 else answered["error"]["message"]
        return Answer(row, fields, error, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))


def failure(place: str, reason: str, custom_id: str | None) -> dict[str, Any]:
    """What the errors file has for a row that is no request."""
    error = {"code": "invalid_request", "message": f"{place}: {reason}"}
    return {"id": None, "custom_id": custom_id, "response": None, "error": error}


def _template(name: str | None) -> ChatTemplate | None:
    if name is None:
        return None
    return PLAIN if name == "plain" else jinja_template(name)


def _body(question: Question) -> Body | str:
    """The body of the request, with the row's seed if it has none; a text says what is wrong with the row."""
    columns = question.row.columns
    body, url = columns["body"], columns["url"]
    if columns["method"] != "POST" or url not in ROUTES:
        return f"{columns['method']!r:.20} {url!r:.60} is not offered; choose POST and one of {', '.join(ROUTES)}"
    if not isinstance(body, dict):
        return f"body is {body!r:.60}; it must be an object"
    if body.get("stream"):
        return "stream is true; a batch is answered in whole"
    if body.get("max_time") is not None:
        return "max_time depends on the machine; a batch has no deadline"
    if url in _SEEDED and body.get("seed") is None:
        return {**body, "seed": question.seed}
    return body


def _has_form(body: Body | str) -> bool:
    """True if the text must have a form, for which a grammar is compiled."""
    return not isinstance(body, str) and any(
        name.startswith("guided_") or name == "response_format" for name, value in body.items() if value is not None
    )


def _refusal(message: str) -> Body:
    from ..serve.errors import ApiError

    return ApiError(400, message).body()


def _timeless(body: Body, name: str) -> Body:
    """The answer without what differs from run to run: its id is the row's, and it has no time."""
    if "id" not in body:
        return body
    kind = str(body["id"]).partition("-")[0]
    return {**body, "id": f"{kind}-{name}", "created": 0}


async def _post(app: ASGIApp, path: str, body: Body) -> tuple[int, Body]:
    """Ask an application by ASGI's protocol -> status, JSON of the answer."""
    octets = json.dumps(body).encode()
    incoming: list[Message] = [{"type": "http.request", "body": octets, "more_body": False}]
    status, parts = 0, list[bytes]()

    async def receive() -> Message:
        if not incoming:  # the client stays until it is answered
            await asyncio.Event().wait()
        return incoming.pop()

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(octets)).encode())]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
    }
    scope |= {"path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers}
    scope |= {"client": ("batch", 0), "server": ("batch", 80)}
    try:
        await app(scope, receive, send)
    except Exception:
        if status != _FAULT:  # after this answer Starlette raises the error, for the server's log
            raise
    return status, json.loads(b"".join(parts))
