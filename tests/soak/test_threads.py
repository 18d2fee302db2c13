"""A few seconds of `threads.py`."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("soak_threads", Path(__file__).with_name("threads.py"))
threads = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(threads)


def test_calls_at_random():
    assert " calls, " in threads.soak(5, seed=1)
