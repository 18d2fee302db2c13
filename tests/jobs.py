"""A `Job` for a kernel under test, and threads that run it."""

import threading

import numpy as np

from nbgpt.abi.job import COUNTERS_OF_PHASE, PHASES, Job

N_PHASES = 8


def new_job(**slots):
    """The bytes of a job: numbers as they are, arrays by address. It has counters for N_PHASES phases."""
    slots = {"counters": np.zeros(PHASES + N_PHASES * COUNTERS_OF_PHASE, np.int64), "n_threads": 1, **slots}
    job = Job()
    for name, value in slots.items():
        setattr(job, name, value.ctypes.data if isinstance(value, np.ndarray) else value)
    job.arrays = slots  # live as long as the job
    return np.frombuffer(job, np.uint8)


def file_of(tensors):
    """The bytes of tensors one after the other, and the offset of each."""
    offsets, parts, end = {}, [], 0
    for name, values in tensors.items():
        offsets[name] = end
        parts.append(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
        end += parts[-1].nbytes
    return np.concatenate(parts), offsets


def run_threads(function, n_threads):
    """function(thread) in n_threads threads at once."""
    threads = [threading.Thread(target=function, args=(thread,)) for thread in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
