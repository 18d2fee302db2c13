"""Watches huggingface_hub while it fetches a file, for the hub may be hostile or the connection not the user's own.

The hub's headers name the files of the cache, so they are checked before anything is written; what comes is counted;
and a hub that sends next to nothing is given up.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from ..backend.locks import RLock

STALL_SECONDS = 60.0
STALL_BYTES = 1 << 16
"""What must come in that time, unless the file ends: a thousand bytes a second."""
_TICK = 0.2
_FAREWELL = 12.0
"""Seconds for a download that was given up to remove its partial file: more than the hub's client waits for a byte."""
_MAX_REQUESTS = 1000
"""For one file, redirects and retries among them."""
_MAX_PAUSE = 3600
"""Seconds that a hub may ask to wait before the next request."""
_DIGEST = re.compile(r'(W/)?"?[0-9a-f]{32,128}"?', re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PAUSE = re.compile(r"(?:^|;\s*t=)(\d+)")  # in `Retry-After: 120` and in `ratelimit: "api";r=0;t=55`
_REDIRECTS = (301, 302, 303, 307, 308)


_one_at_a_time = RLock()
"""The client of huggingface_hub is one for the process, and so are its hooks."""


class RefusedError(Exception):
    """What the hub answers is not taken; the message says what it is."""


class Transfer:
    """One file on its way."""

    def __init__(self, limit: int) -> None:
        """limit: bytes that the file may have."""
        self._limit = limit
        self._n_raw = 0  # bytes that came over the network
        self._n_bytes = 0  # bytes of the file
        self._n_requests = 0
        self._is_under_way = False  # a request; else the client waits for another process, or as long as the hub asked
        self._is_given_up = False
        self._thread: threading.Thread | None = None

    def run(self, download: Callable[[], str]) -> str:
        """What `download` returns or raises. Raises RefusedError for what the hub must not answer, and when it stalls.

        It runs in a thread of its own, as only another one can give up a call that waits for the network.
        """
        outcome: Future[str] = Future()

        def work() -> None:
            try:
                outcome.set_result(download())
            except BaseException as error:
                outcome.set_exception(error)

        self._thread = threading.Thread(target=work, name="nbgpt-download", daemon=True)
        with _one_at_a_time, _checking(self._begin, self._check, self._thread):
            self._thread.start()
            try:
                self._await(outcome)
            finally:
                self._is_given_up = True
                self._thread.join(_FAREWELL)
        return outcome.result()

    def _await(self, outcome: Future[str]) -> None:
        n_raw, seconds = 0, 0.0  # bytes when so many had last come, and the time that requests have taken since
        while not wait([outcome], _TICK).done:
            if self._n_raw - n_raw >= STALL_BYTES:
                n_raw, seconds = self._n_raw, 0.0
            elif self._is_under_way:
                seconds += _TICK
            if seconds > STALL_SECONDS:
                raise RefusedError(f"less than {STALL_BYTES} bytes came in {STALL_SECONDS:g} s")

    def _begin(self, request: Any) -> None:
        """Before a request is sent."""
        if threading.current_thread() is not self._thread:
            return
        self._refuse_if_given_up()
        self._n_requests += 1
        if self._n_requests > _MAX_REQUESTS:
            raise RefusedError(f"it has not come after {_MAX_REQUESTS} requests")
        self._is_under_way = True

    def _refuse_if_given_up(self) -> None:
        if self._is_given_up:
            raise RefusedError("given up")

    def _check(self, response: Any) -> None:
        """Check the headers of a response before its body is read, and count the body while it is read."""
        if threading.current_thread() is not self._thread:
            return
        self._is_under_way = False
        self._refuse_if_given_up()
        headers = response.headers
        etag = headers.get("X-Linked-Etag") or headers.get("ETag")
        location = headers.get("Location")
        is_followed = response.status_code in _REDIRECTS and bool(location) and _is_relative(location)
        is_answer = response.request.method == "HEAD" and response.status_code < 400 and not is_followed
        if is_answer and etag is not None and not _DIGEST.fullmatch(etag):
            raise RefusedError(f"its ETag is {etag!r:.80}, no digest")
        commit = headers.get("X-Repo-Commit")
        if commit is not None and not _COMMIT.fullmatch(commit):
            raise RefusedError(f"its commit is {commit!r:.80}, no 40 hexadecimal digits")
        if location is not None:
            target = response.url.join(location)
            if target.scheme not in ("https", response.url.scheme):
                raise RefusedError(f"it leads from {response.url.scheme} to {target.scheme}")
        for name in ("X-Linked-Size", "Content-Length"):
            size = headers.get(name, "")
            if is_answer and size.isdecimal() and int(size[:20]) > self._limit:
                raise RefusedError(f"it has {size:.20} bytes, and at most {self._limit} are expected")
        if response.status_code >= 400:
            _check_pause(headers)
        response.iter_raw = self._counted(response.iter_raw, is_raw=True)
        response.iter_bytes = self._counted(response.iter_bytes, is_raw=False)

    def _counted(self, chunks: Callable[..., Iterator[bytes]], is_raw: bool) -> Callable[..., Iterator[bytes]]:
        def counted(*arguments: Any, **options: Any) -> Iterator[bytes]:
            self._is_under_way = True
            try:
                for chunk in chunks(*arguments, **options):
                    self._count(len(chunk), is_raw)
                    yield chunk
            finally:
                self._is_under_way = False

        return counted

    def _count(self, n: int, is_raw: bool) -> None:
        self._refuse_if_given_up()
        if is_raw:
            self._n_raw += n
        else:
            self._n_bytes += n
        if max(self._n_raw, self._n_bytes) > self._limit:
            raise RefusedError(f"more than the {self._limit} bytes come that are expected at most")


def _check_pause(headers: Mapping[str, str]) -> None:
    for name in ("Retry-After", "ratelimit"):
        if (pause := _PAUSE.search(headers.get(name, ""))) and int(pause[1][:20]) > _MAX_PAUSE:
            raise RefusedError(f"it asks to wait {pause[1]:.20} s, and at most {_MAX_PAUSE} are waited")


def _is_relative(location: str) -> bool:
    """True for a place within the hub, as of a renamed model: its answer is the next one, and is checked in turn."""
    parts = urlsplit(location)
    return not (parts.scheme or parts.netloc)


@contextmanager
def _checking(begin: Callable[[Any], None], check: Callable[[Any], None], thread: threading.Thread) -> Iterator[None]:
    """Let huggingface_hub's HTTP client, and one that takes its place, hand every request and response to these.

    Its downloads by another protocol (Xet) run in compiled code that nobody can watch: they are off meanwhile. If the
    thread still waits for the network in the end, the watch stays for as long as the process lives.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import _http

    def hooked(client: Any) -> Any:
        hooks = client.event_hooks
        client.event_hooks = {"request": [*hooks["request"], begin], "response": [*hooks["response"], check]}
        return client

    factory, has_no_xet = _http._GLOBAL_CLIENT_FACTORY, constants.HF_HUB_DISABLE_XET
    client = hooked(get_session())
    _http._GLOBAL_CLIENT_FACTORY = lambda: hooked(factory())
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        if not thread.is_alive():
            _http._GLOBAL_CLIENT_FACTORY, constants.HF_HUB_DISABLE_XET = factory, has_no_xet
            for one in {client, get_session()}:
                hooks = one.event_hooks
                one.event_hooks = {kind: [hook for hook in hooks[kind] if hook not in (begin, check)] for kind in hooks}
