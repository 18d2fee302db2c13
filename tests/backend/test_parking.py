"""The way to sleep of systems without futex(2), forced on this one: the same bits, and threads that sleep and wake."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from models import open_model, read
from waiting import wait_until

from nbgpt.abi.job import SLEEPING
from nbgpt.backend import kernel_cache, parking
from nbgpt.engine import model_runner

VERIFY = """
import sys
sys.path = {path}
from nbgpt.backend import parking
from nbgpt.cli.main import main
parking.is_needed = lambda: True
code = main(["verify"])
assert "llvmlite" in sys.modules
sys.exit(code)
"""


@pytest.fixture
def model(path, expected, monkeypatch):
    """A model of three threads whose kernels sleep on a condition variable."""
    monkeypatch.setattr(parking, "is_needed", lambda: True)
    kernels = kernel_cache.load_kernels.__wrapped__("float32")
    assert kernels.enter.engine.get_function_address("syscall")
    monkeypatch.setattr(model_runner, "load_kernels", lambda dtype: kernels)
    return open_model(path, n_threads=3)


def ticks_of(threads):
    """CPU time that threads have taken, in hundredths of a second."""
    fields = [Path(f"/proc/self/task/{one.native_id}/stat").read_text().rpartition(")")[2].split() for one in threads]
    return sum(int(of_one[11]) + int(of_one[12]) for of_one in fields)


def test_threads_sleep_and_wake_up(text, expected, model):
    np.testing.assert_array_equal(read(model, text), expected)
    counters = model.runner.thread_pool._counters
    wait_until(lambda: counters[SLEEPING] == 2)
    own = [thread for thread in threading.enumerate() if thread.name.startswith("nbgpt-")]
    if Path("/proc/self/task").exists():
        before = ticks_of(own)
        time.sleep(0.3)
        assert ticks_of(own) - before <= 5
    for _ in range(50):
        np.testing.assert_array_equal(read(model, text[:3]), expected[:3])
        time.sleep(0.001)  # about as long as a thread waits before it sleeps
    wait_until(lambda: counters[SLEEPING] == 2)
    model.runner.thread_pool.dismiss()
    wait_until(lambda: sum(thread.is_alive() for thread in own) == len(own) - 2)


def test_the_same_bits(home):
    """All that `nbgpt verify` compares, by LLVM's linker and without the futex."""
    program = VERIFY.format(path=sys.path)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "this machine computes everybody's bits" in done.stdout
