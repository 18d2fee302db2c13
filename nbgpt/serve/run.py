"""Run an application with uvicorn: its signals, its protocol, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEAD = 1 << 16
"""Bytes of a request line and its headers."""


def run(
    application: FastAPI,
    host: str,
    port: int,
    *,
    drain_timeout: float,
    client_timeout: float,
    on_started: Callable[[str], None],
    on_hangup: Callable[[], None],
    tls: tuple[str, str] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what has begun; a second signal ends at once.

    Args:
        application: what to serve.
        host: address to listen on.
        port: port to listen on; 0: a free one.
        drain_timeout: seconds that texts have to come to their end.
        client_timeout: seconds that a connection may take to send a request, or to read what it is sent.
        on_started: is called with the URL once requests are taken.
        on_hangup: is called for SIGHUP.
        tls: files of the certificate and of its key.
    """
    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        application,
        host,
        port,
        http=_protocol(client_timeout),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(drain_timeout)),
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    _Server(config, on_started, on_hangup).run()


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, on_started: Callable[[str], None], on_hangup: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_started, self._on_hangup = on_started, on_hangup

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            scheme = "https" if self.config.is_ssl else "http"
            self._on_started(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Our signals in place of uvicorn's, which raises them again at the end: a drained server ends with 0."""
        if hasattr(signal, "SIGHUP"):  # between two events: it writes, which must not happen within another write
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        yield

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + number)
        self.should_exit = True


def _protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, with an end for connections that neither send a whole request nor read an answer."""

    class Protocol(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._is_in_head, self._head_bytes = False, 0
            self._unsent = self._unread = self.loop.call_later(seconds, self.transport.abort)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            is_answering = self.cycle is not None and not self.cycle.response_complete
            if is_answering:
                self._unsent.cancel()
            elif self._unsent.cancelled():
                self._unsent = self.loop.call_later(seconds, self.transport.abort)
            self._head_bytes = self._head_bytes + len(data) if self._is_in_head else 0
            if self._head_bytes > _MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

        def on_message_begin(self) -> None:
            self._is_in_head = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._is_in_head = False
            super().on_headers_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self._unread.cancel()
            super().resume_writing()

        def timeout_keep_alive_handler(self) -> None:
            self.transport.abort()  # `close` would wait for a client that does not read

        def connection_lost(self, exc: Exception | None) -> None:
            self._unsent.cancel()
            self._unread.cancel()
            super().connection_lost(exc)

    return Protocol
