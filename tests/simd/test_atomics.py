"""Counters that several threads change, and threads that sleep until one is changed."""

import threading
import time

import numpy as np
import pytest
from jobs import run_threads
from numba import njit

from nbgpt.simd import (
    atomic_add,
    atomic_load,
    atomic_store,
    data,
    futex_wait,
    futex_wake,
    relax,
    yield_cpu,
)


@njit(error_model="numpy", nogil=True)
def add_many(counters, index, value, times, previous):
    for i in range(times):
        previous[i] = atomic_add(data(counters), index, value)


def test_no_addition_is_lost():
    n_threads, times = 4, 50_000
    counters, previous = np.zeros(3, np.int64), np.zeros((n_threads, times), np.int64)
    add_many(counters, 1, 0, 1, previous[0])  # compiled beforehand, so that the threads run at once
    run_threads(lambda thread: add_many(counters, 1, 3, times, previous[thread]), n_threads)
    assert counters.tolist() == [0, 3 * n_threads * times, 0]
    assert (np.sort(previous.reshape(-1)) == 3 * np.arange(n_threads * times)).all()  # each value was seen once


@njit(error_model="numpy", nogil=True)
def publish(values, counters):
    for i in range(len(values)):
        values[i] = i + 1
        atomic_store(data(counters), 0, i + 1)


@njit(error_model="numpy", nogil=True)
def read_published(values, counters):
    """How many values were not there when the counter said so."""
    missing, seen = 0, 0
    while seen < len(values):
        seen = atomic_load(data(counters), 0)
        if seen > 0 and values[seen - 1] != seen:
            missing += 1
        relax()
        yield_cpu()
    return missing


def test_what_was_written_before_a_store_is_seen_after_a_load():
    values, counters, missing = np.zeros(100_000, np.int64), np.zeros(1, np.int64), []
    reader = threading.Thread(target=lambda: missing.append(read_published(values, counters)))
    reader.start()
    publish(values, counters)
    reader.join(60)
    assert missing == [0]


@njit(error_model="numpy", nogil=True)
def sleep(counters, index, seen):
    futex_wait(data(counters), index, seen)


@njit(error_model="numpy", nogil=True)
def wake(counters, index):
    futex_wake(data(counters), index)


def test_a_counter_that_has_changed_keeps_nobody():
    sleep(np.array([5, 6]), 1, 5)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_all_sleepers_wake(n_threads):
    counters = np.array([5, 6])
    sleep(counters, 1, 0)  # compiled beforehand
    threads = [threading.Thread(target=sleep, args=(counters, 1, 6), daemon=True) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    wake(counters, 0)  # another counter's
    time.sleep(0.05)
    assert all(thread.is_alive() for thread in threads)
    counters[1] = 7
    wake(counters, 1)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
