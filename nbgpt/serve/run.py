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
from uvicorn.protocols.http.auto import AutoHTTPProtocol


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
        client_timeout: seconds that the headers of a request may take.
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
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda *_: self._on_hangup())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        yield

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + number)
        self.should_exit = True


def _protocol(header_seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol; a connection whose first request has not begun in time is closed."""

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._deadline = self.loop.call_later(header_seconds, self._close_idle)

        def _close_idle(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self._deadline.cancel()
            super().connection_lost(exc)

    return Protocol
