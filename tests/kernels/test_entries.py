"""How threads wait for calls, join them and are told to leave, without a model."""

import threading
import time

import numpy as np
import pytest
from numba import njit
from waiting import wait_until

from nbgpt.abi.job import CALLS, CLOSED, COUNTERS_OF_PHASE, PHASES, SLEEPING, WORKING
from nbgpt.kernels import entries
from nbgpt.simd import data

NAMES = ("announce", "close_call", "enter_call", "leave_call")


def call(name, *numbers):
    kernel = getattr(entries, name)
    if numbers:
        return njit(error_model="numpy", nogil=True)(lambda counters, number: kernel(data(counters), number))
    return njit(error_model="numpy", nogil=True)(lambda counters: kernel(data(counters)))


ANNOUNCE, CLOSE, ENTER, LEAVE = (call(name) for name in NAMES)
OPEN, WAIT = call("open_call", 1), call("wait_for_call", 1)


@pytest.fixture
def counters():
    counters = np.full(PHASES + 3 * COUNTERS_OF_PHASE, 5, np.int64)
    counters[:PHASES] = 0
    counters[WORKING] = CLOSED
    return counters


def started(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def test_a_call_can_be_joined_while_it_is_open(counters):
    assert not ENTER(counters)
    LEAVE(counters)
    OPEN(counters, 2)
    assert ENTER(counters)
    assert counters[CALLS] == 1
    LEAVE(counters)
    CLOSE(counters)
    assert not ENTER(counters)
    LEAVE(counters)


def test_a_call_begins_with_its_phases_at_zero(counters):
    OPEN(counters, 2)
    phases = counters[PHASES:].reshape(3, -1, 8)
    assert (phases[:2, :, 0] == 0).all()
    assert (phases[2] == 5).all()  # of no phase of this call


def test_closing_waits_for_the_threads_at_work(counters):
    OPEN(counters, 0)
    CLOSE(counters)  # compiled beforehand
    OPEN(counters, 0)
    assert ENTER(counters)
    closing = started(CLOSE, counters)
    wait_until(lambda: counters[WORKING] == CLOSED + 1)
    assert closing.is_alive()
    LEAVE(counters)
    closing.join(60)
    assert not closing.is_alive()


@pytest.mark.parametrize("asleep", [False, True])
def test_a_waiting_thread_hears_of_a_call(counters, asleep):
    seen = []
    waiting = started(lambda: seen.append(WAIT(counters, 0)))
    if asleep:
        wait_until(lambda: counters[SLEEPING] == 1)
        time.sleep(0.01)
    ANNOUNCE(counters)
    waiting.join(60)
    assert seen == [1]
    assert counters[SLEEPING] == 0
