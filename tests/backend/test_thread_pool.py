"""Teams of threads: how they behave beside other threads of the interpreter."""

import gc
import threading
import time

import numpy as np
import pytest
from models import open_model, read
from waiting import wait_until

from nbgpt.abi.job import SLEEPING
from nbgpt.engine.kv_cache import Sequence


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("nbgpt-")]


def test_far_more_threads_than_cores(path, text, expected):
    np.testing.assert_array_equal(read(open_model(path, n_threads=16), text), expected)


@pytest.mark.parametrize("n_started", [0, 2])
def test_a_system_that_starts_few_threads(path, text, expected, monkeypatch, capfd, n_started):
    start, started = threading.Thread.start, []

    def start_few(thread):
        if thread.name.startswith("nbgpt-"):
            if len(started) == n_started:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_few)
    model = open_model(path, n_threads=512)
    np.testing.assert_array_equal(read(model, text), expected)
    assert capfd.readouterr().err == f"nbgpt: {n_started + 1} threads instead of 512, as the system starts no more\n"
    assert model.n_threads == n_started + 1
    model.runner.thread_pool.dismiss()
    wait_until(lambda: not any(thread.is_alive() for thread in started))


def test_parked_threads_cost_nothing_and_wake_up(path, text, expected):
    model = open_model(path, n_threads=3)
    np.testing.assert_array_equal(read(model, text), expected)
    wait_until(lambda: model.runner.thread_pool._counters[SLEEPING] == 2)
    busy = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - busy < 0.05
    for _ in range(50):
        np.testing.assert_array_equal(read(model, text[:3]), expected[:3])
        time.sleep(0.001)  # about as long as a thread waits before it parks


def test_threads_leave_when_their_team_does(path, text):
    others = set(workers())
    model = open_model(path, n_threads=4)
    assert set(workers()) <= others  # those of other teams may be leaving
    read(model, text[:2])
    own = set(workers()) - others
    assert {thread.name for thread in own} == {"nbgpt-1", "nbgpt-2", "nbgpt-3"}
    del model
    gc.collect()
    wait_until(lambda: not own & set(workers()))


def test_a_team_of_one_has_no_threads(path, text, expected):
    model = open_model(path, n_threads=1)
    others = set(workers())
    np.testing.assert_array_equal(read(model, text), expected)
    assert set(workers()) <= others


def test_callers_take_turns(path, text, expected):
    """Several threads of the interpreter use one model, each for a text of its own."""
    model, drawn = open_model(path, n_threads=2), {}
    greedy = (0.0, 0.0, 1.0, 0.0)

    def work(name):
        sequence = Sequence()
        drawn[name] = [model.next_id(sequence, [token], greedy) for token in text]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert list(drawn.values()) == 4 * [expected.argmax(axis=1).tolist()]


def test_beside_a_busy_thread(path, text, expected):
    """A thread that computes in Python holds the interpreter's lock, which a pass asks for once, when it is done."""
    model, done = open_model(path, n_threads=2), threading.Event()

    def spin():
        while not done.is_set():
            pass

    busy = threading.Thread(target=spin)
    busy.start()
    try:
        started = time.monotonic()
        for _ in range(50):
            np.testing.assert_array_equal(read(model, text[:1]), expected[:1])
        assert time.monotonic() - started < 10
    finally:
        done.set()
        busy.join()
