"""The entry points of compiled code: a call of the interpreter, and the threads that share its work.

A call is one or more consecutive jobs. Thread 0 is the caller; the others wait in `serve` between calls.
`counters` are those of the thread pool, see abi/job.py.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from numba import types

from ..abi.job import (
    CALLS,
    CLOSED,
    COUNTERS_OF_PHASE,
    FIRST_JOB,
    N_JOBS,
    PHASES,
    QUIT,
    REGIONS,
    SLEEPING,
    WORKING,
    Job,
)
from ..simd import at, atomic_add, atomic_load, atomic_store, futex_wait, futex_wake, kernel, pointer_in
from .fields import n_layer, probe
from .forward import make_forward
from .phases import SPINS, pause
from .roofline import measure

_JOB_BYTES = ctypes.sizeof(Job)
_YIELDS = 100  # before an idle thread sleeps


@kernel
def reset_phases(counters, n_phases):
    """Set the counters of all phases to 0."""
    for phase in range(n_phases):
        for line in range(REGIONS + 1):
            atomic_store(counters, PHASES + COUNTERS_OF_PHASE * phase + 8 * line, 0)


@kernel
def announce(counters):
    """Tell the other threads that there is a call, or that they should quit; wakes those that sleep."""
    atomic_add(counters, CALLS, 1)
    if atomic_add(counters, SLEEPING, 0) > 0:  # a plain load could be done before the addition above, on ARM
        futex_wake(counters, CALLS)


@kernel
def open_call(counters, n_phases):
    """Let the other threads work on a call. No thread is at work when this is called."""
    reset_phases(counters, n_phases)
    atomic_add(counters, WORKING, -CLOSED)
    announce(counters)


@kernel
def close_call(counters):
    """Let no more threads start on the call, and wait for those that are at work."""
    atomic_add(counters, WORKING, CLOSED)
    tries = 0
    while atomic_load(counters, WORKING) != CLOSED:
        pause(tries)
        tries += 1


@kernel
def enter_call(counters):
    """Start to work on the call; False if it is closed. `leave_call` must follow in both cases."""
    return atomic_add(counters, WORKING, 1) < CLOSED


@kernel
def leave_call(counters):
    """Undo `enter_call`."""
    atomic_add(counters, WORKING, -1)


@kernel
def wait_for_call(counters, seen):
    """Wait until the number of calls is no longer `seen`; returns it. Spins, then yields, then sleeps."""
    tries = 0
    while atomic_load(counters, CALLS) == seen:
        if tries < SPINS + _YIELDS:
            pause(tries)
        else:
            atomic_add(counters, SLEEPING, 1)
            futex_wait(counters, CALLS, seen)  # returns at once if the number has changed meanwhile
            atomic_add(counters, SLEEPING, -1)
        tries += 1
    return atomic_load(counters, CALLS)


@dataclass(frozen=True)
class Entries:
    """The functions that the interpreter calls, and how many phases need counters."""

    run: Any  # (counters): the caller's share of a call, as thread 0; after QUIT is set, wakes the threads to quit
    serve: Any  # (counters, thread): another thread's share of all calls, until QUIT is set
    phases_of_layer: int
    other_phases: int


def make_entries(block_dtype: str, head_dtype: str) -> Entries:
    """The entries for one type of block weights and one type of embedding and LM head."""
    forward = make_forward(block_dtype, head_dtype)
    run_forward, phases_of_layer, other_phases = forward.run, forward.phases_of_layer, forward.other_phases

    @kernel
    def run_jobs(counters, thread):
        for i in range(atomic_load(counters, N_JOBS)):
            job = at(pointer_in(counters, FIRST_JOB, types.uint8), i * _JOB_BYTES)
            if probe(job) != 0:
                measure(job, types.int64(0), types.int64(0), thread)
            else:
                run_forward(job, thread)

    @kernel
    def run(counters):
        if atomic_load(counters, QUIT) != 0:
            announce(counters)
            return
        n_phases = phases_of_layer * n_layer(pointer_in(counters, FIRST_JOB, types.uint8)) + other_phases
        open_call(counters, n_phases * atomic_load(counters, N_JOBS))
        run_jobs(counters, types.int64(0))  # a literal 0 has another type: Numba would compile everything twice
        close_call(counters)

    @kernel
    def serve(counters, thread):
        seen = types.int64(0)
        while True:
            seen = wait_for_call(counters, seen)
            if atomic_load(counters, QUIT) != 0:
                return
            if enter_call(counters):
                run_jobs(counters, thread)
            leave_call(counters)

    return Entries(run, serve, phases_of_layer, other_phases)
