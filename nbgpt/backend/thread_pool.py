"""The thread pool that runs kernels."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from typing import Any

import numpy as np

from ..abi.job import CLOSED, COUNTERS_OF_PHASE, FIRST_JOB, MAX_JOBS, N_JOBS, PHASES, QUIT, WORKING, Job
from .kernel_cache import Kernels
from .locks import RLock


class ThreadPool:
    """n_threads - 1 threads that wait for jobs inside compiled code; the caller is thread 0.

    The threads never take the GIL. A forked child has none of its parent's threads: its pool starts new ones. Where the
    system starts fewer, these do the work, and n_threads says how many they are.
    """

    def __init__(self, kernels: Kernels, n_threads: int) -> None:
        self.n_threads = n_threads
        self._kernels = kernels
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = RLock()
        self._counters: np.ndarray | None = None

    def run(self, jobs: ctypes.Array[Job], n_jobs: int = 1) -> None:
        """Run the first n_jobs one after the other. A thread that calls meanwhile waits for its turn."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            n_layer = jobs[0].n_layer
            if self._counters is None:
                self._counters = self._start(n_layer)
            counters, bytes_of_job = self._counters.ctypes.data, 8 * self._n_counters(n_layer)
            for i in range(n_jobs):
                jobs[i].counters = counters + i * bytes_of_job
                jobs[i].n_threads = self.n_threads
            self._counters[FIRST_JOB], self._counters[N_JOBS] = ctypes.addressof(jobs), n_jobs
            self._kernels.enter(counters, 0)

    def _n_counters(self, n_layer: int) -> int:
        """Number of counters that the phases of one job take."""
        return COUNTERS_OF_PHASE * (self._kernels.phases_of_layer * n_layer + self._kernels.other_phases)

    def dismiss(self) -> None:
        """End the threads, after the call that is running; the next call starts new ones."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            if self._counters is not None:
                self._finalizer()
                self._counters = None

    def _start(self, n_layer: int) -> np.ndarray:
        counters = np.zeros(PHASES + MAX_JOBS * self._n_counters(n_layer), np.int64)
        counters[WORKING] = CLOSED
        enter = self._kernels.enter

        def serve(thread: int) -> None:
            enter(counters.ctypes.data, thread)

        self._finalizer = weakref.finalize(self, _dismiss, enter, counters, self._pid)  # also if interrupted below
        for thread in range(1, self.n_threads):
            try:
                threading.Thread(target=serve, args=(thread,), name=f"nbgpt-{thread}", daemon=True).start()
            except (RuntimeError, MemoryError):  # a limit of the system
                few = f"{thread} threads instead of {self.n_threads}"
                print(f"nbgpt: {few}, as the system starts no more", file=sys.stderr)
                self.n_threads = thread
                break
        return counters


def _dismiss(enter: Any, counters: np.ndarray, pid: int) -> None:
    """Let the threads of a dropped pool return from compiled code."""
    if pid == os.getpid():
        counters[QUIT] = 1
        enter(counters.ctypes.data, 0)
