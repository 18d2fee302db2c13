"""Locks and forks: neither waits for the other for ever, and a child process knows only its own thread."""

import os
import threading
import time
from weakref import WeakValueDictionary

import pytest
from models import advance, request_of
from workload import COMMON, WILD, of_pages, outcome_alone

from nbgpt.engine import turns
from nbgpt.engine.turns import Turns

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")

SAFETY_NET = 20
"""Seconds after which a thread that waits in vain gives up, so that the test fails and does not hang."""


class _WatchedLock:
    """A reentrant lock that tells when a thread is about to wait for it, has got it, and has released it."""

    def __init__(self, on_wanted=None, on_taken=None, on_released=None):
        self._lock = threading.RLock()
        self._on_wanted, self._on_taken, self._on_released = on_wanted, on_taken, on_released

    def acquire(self, *arguments, **options):
        if self._on_wanted:
            self._on_wanted()
        is_taken = self._lock.acquire(*arguments, **options)
        if is_taken and self._on_taken:
            self._on_taken()
        return is_taken

    def release(self):
        self._lock.release()
        if self._on_released:
            self._on_released()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_):
        self.release()


def _registry(*made):
    return WeakValueDictionary(enumerate(made))


def _exit_code_of_fork(work=lambda: True):
    """Run work in a forked child -> 0 if it returns True."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = not work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_does_not_go_on_with_what_its_parents_threads_ask_for(file):
    """Another thread waits for its turn while this one forks: in the child that thread is gone."""
    model = of_pages(file, 20)
    mine, theirs = (request_of(model, COMMON[n : n + 30], 5, WILD) for n in (0, 50))
    for request in (mine, theirs):
        model.add(request)
    main, is_asking = threading.get_ident(), threading.Event()
    model.lock = _WatchedLock(on_wanted=lambda: threading.get_ident() == main or is_asking.set())
    asking = threading.Thread(target=advance, args=(model, [theirs]), daemon=True)

    def only_mine_grows():
        advance(model, [mine])
        return (len(mine.tokens), len(theirs.tokens)) == (1, 0)

    with model.lock:
        asking.start()
        assert is_asking.wait(SAFETY_NET)
        assert _exit_code_of_fork(only_mine_grows) == 0
    asking.join(SAFETY_NET)
    assert len(theirs.tokens) == 1


def test_a_late_step_of_another_thread_takes_no_token_away(file, alone, monkeypatch):
    """It begins when this thread's step has ended, and ends when this thread has taken the tokens that there were."""
    model, job = of_pages(file, 20), {"prompt": COMMON[:30], "max_tokens": 2, "params": WILD}
    theirs = request_of(model, COMMON[50:80], 60, WILD)
    model.add(theirs)
    main, step = threading.get_ident(), model.scheduler.step
    has_begun, may_go_on = threading.Event(), threading.Event()

    def slow_step(requests):
        if threading.get_ident() != main:
            has_begun.set()
            may_go_on.wait(SAFETY_NET)
        return step(requests)

    def begin_another():
        if threading.get_ident() == main:
            has_begun.clear()
            may_go_on.clear()
            threads.append(threading.Thread(target=advance, args=(model, [theirs]), daemon=True))
            threads[-1].start()
            assert has_begun.wait(SAFETY_NET)

    threads, tokens = [], []
    monkeypatch.setattr(model.scheduler, "step", slow_step)
    model.lock = _WatchedLock(on_released=begin_another)
    for token in model.tokens(request_of(model, **job)):
        tokens.append(token)
        may_go_on.set()
        threads[-1].join(SAFETY_NET)
    assert tokens == outcome_alone(alone, job)[0]
    assert theirs.tokens


def test_a_fork_lets_go_of_a_lock_that_the_owner_of_another_wants(monkeypatch):
    """As a logits processor of one model does that asks a second one, whose lock the fork has taken already."""
    first, second = Turns(), Turns()
    second_is_held, first_is_taken = threading.Event(), threading.Event()
    first.lock = _WatchedLock(on_taken=first_is_taken.set)
    monkeypatch.setattr(turns, "_ALL", _registry(first, second))  # a fork takes the locks in this order
    monkeypatch.setattr(turns, "_PATIENCE", 0.01)
    got = []

    def ask_first_from_second():
        with second.lock:
            second_is_held.set()
            first_is_taken.wait(SAFETY_NET)
            got.append(first.lock.acquire(timeout=SAFETY_NET))
            if got[0]:
                first.lock.release()

    asking = threading.Thread(target=ask_first_from_second, daemon=True)
    asking.start()
    assert second_is_held.wait(SAFETY_NET)
    assert _exit_code_of_fork() == 0
    asking.join(SAFETY_NET)
    assert got == [True]
    for one in (first, second):
        assert one.lock.acquire(blocking=False)
        one.lock.release()


def test_a_fork_takes_locks_that_are_made_while_it_waits_for_others(monkeypatch):
    """As those of a model that another thread loads, and uses at once."""
    first, made, is_used = Turns(), [], threading.Event()

    def make_and_use():
        made.append(Turns())
        with made[0].lock:
            is_used.set()
            time.sleep(0.3)  # a call of the model, during which no child may be born

    def begin():
        if not made:
            threading.Thread(target=make_and_use, daemon=True).start()
            assert is_used.wait(SAFETY_NET)

    monkeypatch.setattr(turns, "_ALL", _registry(first))
    first.lock = _WatchedLock(on_wanted=begin)
    assert _exit_code_of_fork(lambda: made[0].lock.acquire(timeout=1)) == 0
