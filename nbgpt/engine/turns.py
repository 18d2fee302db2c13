"""Turns: one lock that serializes the calls of all threads, and stays usable after exceptions, Ctrl-C and forks."""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar, cast

from ..backend.locks import RLock

_Self = TypeVar("_Self", bound="Turns")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Value = TypeVar("_Value")
_YIELD_SECONDS = 1e-4
"""Sleep after a call while other threads wait for the lock: otherwise this thread would take it again before them."""
_PATIENCE = 1.0
"""Timeout in seconds when a fork takes one lock and holds others; it doubles with each attempt."""


class Turns:
    """Base class: any thread may call the methods that are decorated with `takes_turns`; they run one at a time."""

    def __init__(self) -> None:
        self.lock = RLock()  # reentrant: a logits processor may ask the model something
        self._caller = 0  # the thread that is in a call
        self._waiting: set[int] = set()  # threads that wait for the lock
        self._n_open = 0  # calls that have begun and not ended: those under way, and those that were interrupted
        _ALL[id(self)] = self

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

    An exception or Ctrl-C may end it anywhere: the next call then begins with `recount`, and with `recover` unless it
    is nested in another.
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
            time.sleep(_YIELD_SECONDS)
        return result

    return cast("Callable[Concatenate[_Self, _Arguments], _Result]", call)


_ALL: weakref.WeakValueDictionary[int, Turns] = weakref.WeakValueDictionary()  # by id()
_FORK = RLock()
_HELD: list[Turns] = []


def alive(registry: weakref.WeakValueDictionary[int, _Value]) -> list[_Value]:
    """The values of a registry that somebody holds, though other threads make and drop some meanwhile."""
    refs = registry.valuerefs()  # copied at once, which iterating over the values is not before Python 3.14
    return [value for one in refs if (value := one()) is not None]


def _before_fork() -> None:
    """Take all locks: the child has no other threads, so it must not inherit a call that one of them has half done.

    A thread that holds one lock may wait for a second, such as a logits processor that calls another model. Therefore,
    to avoid a deadlock, this releases all locks at a timeout and starts again with the lock that it did not get.
    """
    _FORK.acquire()
    waiting, patience = alive(_ALL), _PATIENCE
    while waiting:
        if waiting[0].lock.acquire(timeout=patience if _HELD else -1):
            _HELD.append(waiting.pop(0))
        else:
            waiting += _HELD
            _release()
            patience *= 2
        waiting += [one for one in alive(_ALL) if one not in waiting and one not in _HELD]  # made meanwhile


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
