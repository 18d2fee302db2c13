"""Waiting for what other threads and processes do."""

import time


def wait_until(condition, seconds=60.0):
    """Ask again and again, until the condition holds; fails after many times what it should take."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"this does not become true in {seconds:g} s"
        time.sleep(0.01)
