"""The machine's roofline: memory bandwidth and float32 multiply-adds a second, measured by compiled code."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..abi.job import PROBE_FLOATS, PROBE_MULTIPLY_ADD, PROBE_READ
from ..backend.buffers import aligned_zeros
from ..engine.model_runner import ModelRunner

_READ_BYTES = 512 << 20
_TRIES = 7


@dataclass(frozen=True)
class Roofline:
    """What the machine reaches with some number of threads."""

    read_gb_s: float  # gigabytes (10^9) a second, read from memory
    fma_gflop_s: float  # float32 multiplications and additions, 10^9 a second


def measure_roofline(runner: ModelRunner) -> Roofline:
    """Bandwidth (reading 512 MiB) and float32 multiply-adds of the runner's threads, the best of 7 tries each."""
    data = aligned_zeros((_READ_BYTES // 4,), "float32")
    data[:] = 1  # the system maps a page when it is first written
    items = len(data) // PROBE_FLOATS
    read = _best_seconds(lambda: runner.probe(PROBE_READ, items, data))
    items = 64 * runner.thread_pool.n_threads
    multiply_add = _best_seconds(lambda: runner.probe(PROBE_MULTIPLY_ADD, items, data))
    return Roofline(data.nbytes / read / 1e9, runner.probe_flop * items / multiply_add / 1e9)


def _best_seconds(run: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_TRIES):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best
