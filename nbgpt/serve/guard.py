"""What stands before the routes: hosts, origins, keys and sizes are checked here, and every answer is logged."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError
from .limits import Limits
from .metrics import Metrics

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_OPEN = ("/", "/health", "/ready", "/docs", "/openapi.json")  # need no key: they tell nothing and do no work
_FAULT = 500
_CLIENT_GONE = 499
"""What nginx notes for a client that has not waited for the end of its answer."""
_LOG = logging.getLogger("nbgpt.serve")


class Keys:
    """The API keys that are accepted; without any, everybody is."""

    def __init__(self, file: Path | None = None, also: Collection[str] = ()) -> None:
        """file: a key a line; also: further keys. Raises OSError, or ValueError if the file has none."""
        self._file, self._also = file, tuple(also)
        self.reload()

    def reload(self) -> None:
        """Read the file again."""
        keys = [*self._also]
        if self._file is not None:
            found = [line.strip() for line in self._file.read_text(encoding="utf-8").splitlines() if line.strip()]
            if not found:
                raise ValueError(f"{self._file} has no API key; write one a line")
            keys += found
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, authorization: str) -> bool:
        """Is this the Authorization header of somebody who has a key? Takes as long whichever key it is."""
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode()).digest()
        matches = [hmac.compare_digest(digest, one) for one in self._digests]
        return not matches or (scheme.lower() == "bearer" and any(matches))


class Guard:
    """An ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        hosts: Collection[str] | None,
        origins: Collection[str],
        limits: Limits,
        metrics: Metrics,
        open_prefix: str,
    ) -> None:
        """hosts: names that requests may use for this server, None for any. origins: of pages that may ask it."""
        self._app, self._keys, self._hosts, self._origins = app, keys, hosts, origins
        self._limits, self._metrics, self._open_prefix = limits, metrics, open_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by ASGI's protocol."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), _FAULT

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start" and status != _CLIENT_GONE:
                status = message["status"]
            await send(message)

        async def watched() -> Message:
            nonlocal status
            message = await receive()
            if message["type"] == "http.disconnect":
                status = _CLIENT_GONE
            return message

        try:
            if refusal := self._refusal(scope):
                await refusal.response()(scope, receive, noted)
            else:
                await self._app(scope, self._bounded(watched), noted)
        finally:
            self._note(scope, status, time.perf_counter() - start)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers, path = Headers(scope=scope), scope["path"].removeprefix(scope.get("root_path", ""))
        host = headers.get("host", "")
        if self._hosts is not None and _hostname(host) not in self._hosts:
            return ApiError(403, f"this server is not {host[:100]!r}", code="host_not_allowed")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host and not {origin, "*"} & set(self._origins):
            return ApiError(403, f"pages of {origin[:100]!r} may not ask this server: --cors-origin allows them")
        is_open = path in _OPEN or path.startswith(self._open_prefix)
        if not is_open and not self._keys.accept(headers.get("authorization", "")):
            return ApiError(401, "a valid API key is needed: Authorization: Bearer KEY", code="invalid_api_key")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.max_body:
            return self._too_large()
        return None

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is too large; at most {self._limits.max_body} bytes")

    def _bounded(self, receive: Receive) -> Receive:
        """`receive`, with a limit on the size of the body, and on the time until it is complete."""
        n_bytes, is_complete = 0, False
        deadline = time.monotonic() + self._limits.client_timeout

        async def bounded() -> Message:
            nonlocal n_bytes, is_complete
            if is_complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except asyncio.TimeoutError:
                raise HTTPException(408, "the request did not arrive in time") from None
            n_bytes += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if n_bytes > self._limits.max_body:
                raise HTTPException(413, str(self._too_large()))
            return message

        return bounded

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.http_requests.labels(route, str(status)).inc()
        facts: dict[str, Any] = {"method": scope["method"], "path": scope["path"][:200], "status": status}
        facts |= {"client": (scope.get("client") or ("",))[0], "seconds": round(seconds, 4)}
        _LOG.info("request", extra={"facts": facts | scope.get("nbgpt.facts", {})})


def _hostname(host: str) -> str | None:
    """The name in a Host header, without the port; None for what is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class LogFormatter(logging.Formatter):
    """A line a request: `name=value ...`, or a JSON object. No text of the user is in it."""

    def __init__(self, is_json: bool) -> None:
        super().__init__("%(message)s")
        self._is_json = is_json

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created))
        facts = getattr(record, "facts", None) or {"message": super().format(record)}
        facts = {"time": when, "level": record.levelname.lower(), **facts}
        if self._is_json:
            return json.dumps(facts)
        return " ".join(f"{name}={_in_a_line(value)}" for name, value in facts.items())


def _in_a_line(value: Any) -> str:
    """A value as it is if it is printable, else quoted: a path must not begin a line of its own."""
    text = str(value)
    return text if text.isprintable() else json.dumps(text)
