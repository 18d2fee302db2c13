"""`explain --serve`: the page on this machine, with answers to what a file cannot hold.

The standard library's server is enough: one page, two questions, one user. It listens on 127.0.0.1 alone, and answers
only requests that name it as their host, so that no other site's page can ask it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ...engine.engine import Engine
from ...strict_json import parse_object
from ...tokenizer import Tokenizer
from ..ablation import ablate
from ..trace import Trace
from .heads import products
from .packed import pack, pack_floats

HOST = "127.0.0.1"
_MAX_BODY = 1 << 20
_HTTP_PORT = 80


class Explainer:
    """Answers the questions of a page about its trace; the engine takes one at a time."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, trace: Trace) -> None:
        self.engine, self.tokenizer, self.trace = engine, tokenizer, trace
        self._lock = threading.Lock()

    def products(self, question: Any) -> dict[str, Any]:
        """Queries and keys of a head: {"head": layer * n_head + head}."""
        head, n_heads = question["head"], self.trace.config.n_layer * self.trace.config.n_head
        if not isinstance(head, int) or not 0 <= head < n_heads:
            raise ValueError(f"head is {head!r}; it must be from 0 to {n_heads - 1}")
        return products(self.trace, [head])

    def ablate(self, question: Any) -> dict[str, Any]:
        """Predictions after every token without some parts: {"off": [[layer, head], ...]}; head n_head is the MLP."""
        off = [(int(layer), int(head)) for layer, head in question["off"]]
        with self._lock:
            found = ablate(self.engine, self.tokenizer, self.trace, off)
        return {
            "ids": pack(found.ids),
            "probabilities": pack_floats(found.probabilities),
            "divergence": pack_floats(found.divergence.clip(min=0)),
            "texts": found.texts,
        }


class Handler(BaseHTTPRequestHandler):
    """Answers requests with the page and what the explainer says."""

    server: Server

    def do_GET(self) -> None:
        if not self._is_for_us():
            self._refuse(HTTPStatus.FORBIDDEN, "this page is for this machine alone")
        elif self.path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page.encode())
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is one page here, /")

    def do_POST(self) -> None:
        questions = {"/products": self.server.explainer.products, "/ablate": self.server.explainer.ablate}
        if not self._is_for_us():
            self._refuse(HTTPStatus.FORBIDDEN, "only its own page may ask")
        elif self.path not in questions:
            self._refuse(HTTPStatus.NOT_FOUND, f"nobody answers {self.path} here")
        else:
            self._reply(questions[self.path])

    def _reply(self, reply: Callable[[Any], dict[str, Any]]) -> None:
        try:
            body = json.dumps(reply(self._question()))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"this is no question that the page asks: {error}")
        except MemoryError:
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, "the answer takes more memory than there is")
        else:
            self._answer(HTTPStatus.OK, "application/json", body.encode())

    def _question(self) -> dict[str, Any]:
        """The body of a request. Raises ValueError if it is too long, or no JSON object."""
        length = int(self.headers["Content-Length"] or 0)
        if not 0 <= length <= _MAX_BODY:
            self.close_connection = True  # the body is not read
            raise ValueError(f"its Content-Length is {length}; it must be from 0 to {_MAX_BODY}")
        return parse_object(self.rfile.read(length), "the body", _MAX_BODY)

    def _is_for_us(self) -> bool:
        """No other name leads here, and no other page asks: DNS rebinding and cross-site requests."""
        port = self.server.server_port
        own = {f"{name}:{port}" for name in (HOST, "localhost")}
        if port == _HTTP_PORT:  # which browsers leave out
            own |= {HOST, "localhost"}
        origin = self.headers["Origin"]
        return self.headers["Host"] in own and (origin is None or origin.removeprefix("http://") in own)

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._answer(status, "application/json", json.dumps({"error": message}).encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """No lines for each request on a terminal."""


class Server(ThreadingHTTPServer):
    """A server for one page, which `serve_forever` runs; port 0: one that is free."""

    daemon_threads = True

    def __init__(self, page: str, explainer: Explainer, port: int = 0) -> None:
        self.page, self.explainer = page, explainer
        super().__init__((HOST, port), Handler)
