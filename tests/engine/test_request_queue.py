"""What is held weakly is looked at in one thread while another drops it."""

import linecache
import sys
import threading

import pytest

from nbgpt.engine import turns
from nbgpt.engine.kept_text import KeptText, KeptTexts
from nbgpt.engine.request_queue import RequestQueue
from nbgpt.engine.turns import Turns

SAFETY_NET = 20
"""Seconds after which a thread that waits in vain gives up, so that the test fails and does not hang."""
N = 3


class _Request:
    number = -1


def requests():
    queue, held = RequestQueue(), [_Request() for _ in range(N)]
    for request in held:
        queue.add(request)
    queue.welcome()
    return held, lambda: list(queue)


def kept_texts():
    texts, held = KeptTexts(None), [KeptText() for _ in range(N)]
    for kept in held:
        texts.add(kept)
    return held, lambda: texts.sequences


def all_turns():
    return [Turns() for _ in range(N)], lambda: [one for one in turns.alive(turns._ALL) if type(one) is Turns]


@pytest.mark.parametrize("make", [requests, kept_texts, all_turns])
def test_one_is_dropped_while_another_thread_looks_at_all(make):
    """Its weak reference has found that nobody iterates, and removes it when somebody does: Python before 3.14."""
    held, look = make()
    n_before = len(look())
    found = _look_while_dropped(held, look)
    assert n_before - N <= len(found) <= n_before - 1
    assert len(look()) == n_before - 1


def _look_while_dropped(held, look):
    """Drop one in a thread that stops before the removal, until this one is in the middle of an iteration."""
    is_about_to, may_go_on = threading.Event(), threading.Event()

    def in_callback(frame, event, _):
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and ("_atomic_removal(self" in line or ".discard(" in line):
            is_about_to.set()
            may_go_on.wait(SAFETY_NET)
        return in_callback

    def drop():
        sys.settrace(in_callback)
        held.pop()
        sys.settrace(None)
        is_about_to.set()

    def in_iteration(frame, event, _):
        if (
            event == "return"
            and "weakref" in frame.f_code.co_filename
            and frame.f_code.co_name in ("values", "__iter__")
        ):
            may_go_on.set()
            dropping.join(SAFETY_NET)
        return in_iteration

    dropping, before = threading.Thread(target=drop, daemon=True), sys.gettrace()
    dropping.start()
    assert is_about_to.wait(SAFETY_NET)
    sys.settrace(in_iteration)
    try:
        return look()
    finally:
        sys.settrace(before)
        may_go_on.set()
        dropping.join(SAFETY_NET)
