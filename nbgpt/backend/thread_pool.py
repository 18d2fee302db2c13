"""The threads that run kernels, and how many there should be."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from ..abi.job import CLOSED, INSIDE, JOB, MAX_TURNS, QUIT, STEPS, TURNS, Job, n_cells


class ThreadPool:
    """N - 1 threads that wait inside compiled code for jobs, and the caller as the last one.

    The threads never ask for the interpreter's lock. A forked child has none of its parent's threads, so the team
    notices and starts its own.
    """

    def __init__(self, enter: Any, n_threads: int) -> None:
        self.n_threads = n_threads
        self._enter = enter
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._cells: np.ndarray | None = None

    def run(self, jobs: ctypes.Array[Job], turns: int = 1) -> None:
        """Do the first jobs one after the other; other threads that call meanwhile wait their turn."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            if self._cells is None:
                self._cells = self._start(jobs[0].n_layer)
            cells = self._cells.ctypes.data
            for turn in range(turns):
                jobs[turn].cells = cells + 8 * turn * n_cells(jobs[0].n_layer)
                jobs[turn].n_threads = self.n_threads
            self._cells[JOB], self._cells[TURNS] = ctypes.addressof(jobs), turns
            self._enter(cells, 0)

    def dismiss(self) -> None:
        """Send the threads home when their job is done; another job starts new ones."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            if self._cells is not None:
                self._finalizer()
                self._cells = None

    def _start(self, n_layer: int) -> np.ndarray:
        cells = np.zeros(STEPS + MAX_TURNS * n_cells(n_layer), np.int64)
        cells[INSIDE] = CLOSED
        enter = self._enter

        def serve(me: int) -> None:
            enter(cells.ctypes.data, me)

        self._finalizer = weakref.finalize(self, _dismiss, enter, cells, self._pid)  # also if interrupted below
        for me in range(1, self.n_threads):
            threading.Thread(target=serve, args=(me,), name=f"nbgpt-{me}", daemon=True).start()
        return cells


def _dismiss(enter: Any, cells: np.ndarray, pid: int) -> None:
    """Let the threads of a team that is no longer used come home."""
    if pid == os.getpid():
        cells[QUIT] = 1
        enter(cells.ctypes.data, 0)


def physical_cores(cpus: set[int], topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """How many cores lie behind these logical CPUs; as many as CPUs where the system does not say."""
    cores = set()
    for cpu in cpus:
        try:
            cores.add((topology / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """CPUs' worth of time that the control group (version 2 or 1) allows; None: no limit."""
    quotas = []
    with contextlib.suppress(OSError, ValueError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                folder = root / path.lstrip("/")
                for group in (folder, *folder.parents):  # a parent's limit binds its children
                    quotas += _quota_v2(group)
            elif "cpu" in controllers.split(","):
                quotas += _quota_v1(root / "cpu" / path.lstrip("/")) + _quota_v1(root / "cpu")
    return min(quotas, default=None)


def _quota_v2(group: Path) -> list[float]:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return [] if quota == "max" else [int(quota) / int(period)]
    except (OSError, ValueError):
        return []


def _quota_v1(group: Path) -> list[float]:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return [] if quota < 0 else [quota / int((group / "cpu.cfs_period_us").read_text())]
    except (OSError, ValueError):
        return []


def default_threads() -> int:
    """Physical cores that this process may use, within its control group's quota; at least 1."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    quota = cpu_quota()
    cores = physical_cores(cpus)
    return max(1, cores if quota is None else min(cores, round(quota)))
