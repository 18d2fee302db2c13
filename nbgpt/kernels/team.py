"""A team of threads inside compiled code: a barrier, tickets for work, and sleep between jobs.

Nothing here knows of Python, so no thread ever waits for the interpreter's lock.
"""

from __future__ import annotations

from ..job import ARRIVED, JOBS, PARKED, PASSED, TICKET
from ..simd import (
    atomic_add,
    atomic_load,
    atomic_store,
    futex_wait,
    futex_wake,
    kernel,
    relax,
    yield_cpu,
)

_SPINS = 3000  # some tens of microseconds: longer than a phase is out of balance, shorter than a scheduler's slice
_YIELDS = 100


@kernel
def barrier(cells, n_threads):
    """Wait until every thread of the team is here; hands out tickets from zero again."""
    passed = atomic_load(cells, PASSED)
    if atomic_add(cells, ARRIVED, 1) == n_threads - 1:
        atomic_store(cells, ARRIVED, 0)
        atomic_store(cells, TICKET, 0)
        atomic_add(cells, PASSED, 1)
        return
    spins = 0
    while atomic_load(cells, PASSED) == passed:
        if spins < _SPINS:
            spins += 1
            relax()
        else:
            yield_cpu()  # whoever we wait for may need this core


@kernel
def claim(cells):
    """The next piece of work of this phase that nobody has taken."""
    return atomic_add(cells, TICKET, 1)


@kernel
def wait_for_job(cells, seen):
    """The number of the first job after `seen`: spins, then yields, then sleeps until it is woken."""
    tries = 0
    while atomic_load(cells, JOBS) == seen:
        if tries < _SPINS:
            relax()
        elif tries < _SPINS + _YIELDS:
            yield_cpu()
        else:
            atomic_add(cells, PARKED, 1)
            futex_wait(cells, JOBS, seen)  # returns at once if the number has changed meanwhile
            atomic_add(cells, PARKED, -1)
        tries += 1
    return atomic_load(cells, JOBS)


@kernel
def announce_job(cells):
    """Let the other threads go; wakes those that sleep."""
    atomic_add(cells, JOBS, 1)
    if atomic_load(cells, PARKED) > 0:
        futex_wake(cells, JOBS)
