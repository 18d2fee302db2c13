"""Targets that read what clients send: requests, and the forms that they ask of a text."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any

from harness import json_or, parts_of, scratch, strict_target, target


@functools.cache
def _application() -> Any:
    """A server with a small model, and limits that inputs can reach."""
    from folders import text_config, write_text_model
    from models import random_params

    import nbgpt
    from nbgpt.serve import worker
    from nbgpt.serve.application import app
    from nbgpt.serve.limits import Limits
    from nbgpt.tasks.chat_template import PLAIN

    worker._GAP_SECONDS = 0.0  # no other request will come
    config = text_config(n_layer=1, n_labels=2)
    model = nbgpt.load(write_text_model(scratch() / "served.safetensors", config, random_params(config)), threads=1)
    limits = Limits(max_texts=4, timeout=0.1, max_stops=2, max_stop_length=9, max_grammar=300, grammar_seconds=1)
    return app(model, limits=limits, chat_template=PLAIN)


@strict_target
def request(data: bytes) -> None:
    """A route and a body: every body has an answer that is JSON or a stream, and tells of no fault of the server."""
    route, body = parts_of(data, 2)
    status, answer = asyncio.run(_post(_application(), "/" + route.decode(errors="replace"), body))
    assert 200 <= status < 500 or status == 503, (status, answer)
    assert answer.startswith(b"data: ") or isinstance(json.loads(answer), dict)


async def _post(app: Any, path: str, body: bytes) -> tuple[int, bytes]:
    """Ask an application by ASGI's protocol -> status, answer."""
    incoming, sent = [{"type": "http.request", "body": body, "more_body": False}], []

    async def receive() -> Any:
        if not incoming:  # the client stays until it is answered
            await asyncio.Event().wait()
        return incoming.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"}
    scope |= {"path": path, "raw_path": path.encode(errors="replace"), "root_path": "", "query_string": b""}
    scope |= {"headers": [(b"content-type", b"application/json")], "client": ("here", 0), "server": ("here", 80)}
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@target
def grammar(data: bytes) -> None:
    """A form of texts, as an option and its value, and bytes that choose among the tokens that it allows."""
    import numpy as np
    from folders import TOKENIZER

    from nbgpt.sampling.structured_output import Constraint

    form, choices = parts_of(data, 2)
    asked: Any = json_or(form, {})
    name = next(
        (name for name in ("choice", "regex", "json_schema") if isinstance(asked, dict) and name in asked), None
    )
    if name is None:
        return
    follow = Constraint(TOKENIZER, name, asked[name]).for_request(0)
    ids: list[int] = []
    for choice in choices[:40]:
        logits = follow(np.array(ids, np.int32), np.zeros(TOKENIZER.n_vocab, np.float32))
        allowed = np.flatnonzero(np.isfinite(logits))
        assert len(allowed)
        ids.append(int(allowed[choice % len(allowed)]))
        if ids[-1] in TOKENIZER.eos_ids:
            return
