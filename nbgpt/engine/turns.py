"""Turns: the lock under which the calls of several threads follow one another, across errors and forks."""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar, cast

_Self = TypeVar("_Self", bound="Turns")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_HAND_OVER = 1e-4
"""Seconds that a thread leaves to those that wait for its lock, since it would otherwise get it again before them."""
_PATIENCE = 1.0
"""Seconds that a fork waits at first for one lock while it holds others."""


class Turns:
    """An object whose methods, where they are marked with `takes_turns`, any thread may call."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # reentrant: a logits processor may ask the model something
        self._caller = 0  # the thread that is in a call
        self._waiting: set[int] = set()  # threads that wait for the lock
        self._n_open = 0  # calls that have begun and not ended: those under way, and those that were interrupted
        _ALL.add(self)

    def recount(self) -> None:
        """Repair what an interrupted call has left half done. Harmless in the middle of a call."""

    def recover(self) -> None:
        """End what interrupted calls were doing. Called between calls only."""

    def forget_threads(self) -> None:
        """Forget what other threads wait for: in a forked process there are none."""
        self._waiting.clear()


def takes_turns(
    method: Callable[Concatenate[_Self, _Arguments], _Result],
) -> Callable[Concatenate[_Self, _Arguments], _Result]:
    """A method under the lock of its object.

    An exception or Ctrl-C may end it anywhere: the next call begins with `recount` and `recover`.
    """

    @functools.wraps(method)
    def call(self: _Self, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        me = threading.get_ident()
        try:
            self._waiting.add(me)
            with self.lock:
                self._waiting.discard(me)
                is_nested = self._caller == me
                if self._n_open:
                    self.recount()
                    if not is_nested:
                        self.recover()
                        self._n_open = 0
                self._caller = me
                self._n_open += 1
                try:
                    result = method(self, *args, **kwargs)
                finally:
                    self._caller = me if is_nested else 0
                self._n_open -= 1
        finally:
            self._waiting.discard(me)
        if self._waiting and not is_nested:
            time.sleep(_HAND_OVER)
        return result

    return cast("Callable[Concatenate[_Self, _Arguments], _Result]", call)


_ALL = weakref.WeakSet[Turns]()
_FORK = threading.RLock()
_HELD: list[Turns] = []


def _before_fork() -> None:
    """Wait for the calls of other threads: the child would find them half done for ever.

    The owner of one lock may want another, as a logits processor does that asks a second model: after a while this
    lets go of all locks, and begins with the one that it could not get.
    """
    _FORK.acquire()
    waiting, patience = list(_ALL), _PATIENCE
    while waiting:
        if waiting[0].lock.acquire(timeout=patience if _HELD else -1):
            _HELD.append(waiting.pop(0))
        else:
            waiting += _HELD
            _release()
            patience *= 2


def _release() -> None:
    while _HELD:
        _HELD.pop().lock.release()


def _after_fork() -> None:
    _release()
    _FORK.release()


def _after_fork_in_child() -> None:
    for one in _HELD:
        one.forget_threads()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
