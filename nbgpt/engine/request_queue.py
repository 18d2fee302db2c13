"""The requests that a scheduler has been given, in their order of arrival."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from math import inf
from weakref import WeakValueDictionary, ref

from .request import Request, State
from .turns import alive

PAUSE_SECONDS = 0.05
"""A request that no step has been asked for as long is paused: its pages may be taken for one that goes on."""


class RequestQueue:
    """Requests from `add` to `remove`. They are not kept alive: one that nobody holds any more is gone."""

    def __init__(self) -> None:
        self._arrivals: deque[ref[Request]] = deque()
        self._requests: WeakValueDictionary[int, Request] = WeakValueDictionary()  # by order of arrival
        self._n_arrived = 0
        self._now = 0.0  # when the step began: seconds of `time.monotonic`

    def __iter__(self) -> Iterator[Request]:
        """The requests that were welcomed, the oldest first."""
        return iter(alive(self._requests))

    def add(self, request: Request) -> None:
        """Let a request be welcomed by the next step; any thread may call this."""
        self._arrivals.append(ref(request))

    @property
    def has_arrivals(self) -> bool:
        """True if requests are waiting to be welcomed."""
        return bool(self._arrivals)

    def welcome(self) -> list[Request]:
        """Number the requests that have arrived -> these requests."""
        welcomed = []
        while self._arrivals:
            request = self._arrivals.popleft()()
            if request is not None:
                request.number = self._n_arrived
                self._requests[request.number] = request
                self._n_arrived += 1
                welcomed.append(request)
        return welcomed

    def remove(self, request: Request) -> None:
        """Forget a request."""
        self._requests.pop(request.number, None)

    def present(self, wanted: Iterable[Request] | None, in_outer_step: list[Request]) -> list[Request]:
        """The requests that take part in a step which begins now, the oldest first.

        wanted: all that are to take part; None: every request. Those of an outer step are paused instead.
        """
        self.touch([])
        asked = dict.fromkeys(self if wanted is None else wanted)
        present = [one for one in asked if one.state is not State.FINISHED and one not in in_outer_step]
        present.sort(key=lambda request: request.number)
        for request in in_outer_step:
            request.last_asked = -inf
        self.touch(present)
        return present

    def touch(self, requests: list[Request]) -> None:
        """Note that it is now, and that these requests are taking part."""
        self._now = time.monotonic()
        for request in requests:
            request.last_asked = self._now

    def is_active(self, request: Request) -> bool:
        """True if it takes part in the step, or took part in one a moment ago."""
        return self._now - request.last_asked < PAUSE_SECONDS
