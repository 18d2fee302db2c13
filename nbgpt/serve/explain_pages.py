"""`/explain`: the page of `nbgpt.analysis.explain` for a text, made for the playground, which shows it in a frame."""

from __future__ import annotations

import asyncio
import re
import secrets
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256

from fastapi import APIRouter
from pydantic import StrictInt
from starlette.responses import HTMLResponse, Response

from ..analysis.explain import check_length, page, switched_off
from .errors import ApiError
from .generation import Server
from .schemas import Strict

_MAX_KEPT = 4
"""Pages that wait for their frame, each below 10 MB."""
_MAX_FLOP = 1e11
"""What it may cost to switch off every part in advance: a second of two cores, as other clients wait."""
_SECONDS_KEPT = 60.0


class ExplainRequest(Strict):
    """A text to explain."""

    prompt: str | list[StrictInt]
    model: str | None = None


class OneTimePages:
    """Pages that are given out once, under names that cannot be guessed: a frame cannot send an API key."""

    def __init__(self) -> None:
        self._pages: dict[str, str] = {}  # by name, oldest first

    def keep(self, html: str) -> str:
        """Keep a page for a minute, or until others need its place -> its name."""
        while len(self._pages) >= _MAX_KEPT:
            del self._pages[next(iter(self._pages))]
        name = secrets.token_urlsafe(16)
        self._pages[name] = html
        asyncio.get_running_loop().call_later(_SECONDS_KEPT, self._pages.pop, name, None)
        return name

    def take(self, name: str) -> str:
        """The page of this name. Raises ApiError if there is none, or none any more."""
        try:
            return self._pages.pop(name)
        except KeyError:
            raise ApiError(404, "this page was fetched already, or is too old: explain the text again") from None


def policy(html: str) -> str:
    """A Content-Security-Policy that allows the script and the style of a page, known by their hashes, and no more."""
    hashes = {
        tag: f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
        for tag, content in re.findall(r"<(style|script)>(.*?)</\1>", html, re.DOTALL)
    }
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts"
    )


def add_routes(router: APIRouter, server: Server, prefix: str, headers: Mapping[str, str]) -> None:
    """POST /explain makes a page, whose address lies below the prefix, which is open to requests without a key."""
    pages = OneTimePages()

    @router.post("/explain")
    async def explain(body: ExplainRequest) -> dict[str, str]:
        served = server.models.find(body.model)

        def make() -> str:
            ids, model = served.model.encode(body.prompt), served.model
            check_length(len(ids))
            trace = model.trace(ids)
            return page(trace, served.name, switched_off(model.engine, model.tokenizer, trace, _MAX_FLOP))

        return {"page": f"{prefix}explain/{pages.keep(await server.read(make))}".lstrip("/")}

    @router.get(prefix + "explain/{name}")
    async def explained(name: str) -> Response:
        html = pages.take(name)
        own = {"Content-Security-Policy": policy(html), "Cache-Control": "no-store"}
        return HTMLResponse(html, headers={**headers, **own})
