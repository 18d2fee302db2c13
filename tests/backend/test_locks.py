"""Ctrl-C at any moment leaves a lock free."""

import signal
import threading

import pytest

from nbgpt.backend.locks import RLock


def take_until_interrupted(lock):
    signal.setitimer(signal.ITIMER_REAL, 2e-3)
    while True:
        with lock:
            pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
@pytest.mark.parametrize("n_held", [0, 1])
def test_interrupts_at_any_moment(n_held):
    lock, found = RLock(), []

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(100):
            for _ in range(n_held):
                lock.acquire()
            with pytest.raises(KeyboardInterrupt):
                take_until_interrupted(lock)
            for _ in range(n_held):
                lock.release()
            other = threading.Thread(target=lambda: found.append(lock.acquire(blocking=False) and not lock.release()))
            other.start()
            other.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert found == [True] * 100
