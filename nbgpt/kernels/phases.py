"""A team of threads inside compiled code: jobs, the steps of a job, and the items of a step.

Threads claim the items of a step one by one, and go on to the next step when all of its items are done, whoever did
them. So a thread that the system has put aside delays nobody unless it holds an item: the others do its share, and it
catches up by finding nothing left to do. Nothing here knows of Python: no thread waits for the interpreter's lock.
"""

from __future__ import annotations

from ..abi.job import CLOSED, INSIDE, JOBS, PARKED, REGIONS, STEP_CELLS, STEPS
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

_SPINS = 3000  # some tens of microseconds: longer than a step is out of balance, shorter than a scheduler's slice
_YIELDS = 100


@kernel
def claim(cells, step):
    """The next item of a step that nobody has taken."""
    return atomic_add(cells, STEPS + STEP_CELLS * step + 8, 1)


@kernel
def claim_near(cells, step, n_items, me, n_threads):
    """The next item of a thread's own region of a step, then of the other regions; n_items if all are taken."""
    regions = min(n_threads, REGIONS)
    for k in range(regions):
        region = (me + k) % regions
        first, last = region * n_items // regions, (region + 1) * n_items // regions
        given = STEPS + STEP_CELLS * step + 8 * (region + 1)
        if first + atomic_load(cells, given) < last:
            item = first + atomic_add(cells, given, 1)
            if item < last:
                return item
    return n_items


@kernel
def item_done(cells, step):
    """Say that an item is done; what was written before is seen by all who then find the step done."""
    atomic_add(cells, STEPS + STEP_CELLS * step, 1)


@kernel
def _pause(tries):
    if tries < _SPINS:
        relax()
    else:
        yield_cpu()  # whoever we wait for may need this core


@kernel
def wait_for_step(cells, step, n_items):
    """Wait until all items of a step are done."""
    tries = 0
    while atomic_load(cells, STEPS + STEP_CELLS * step) < n_items:
        _pause(tries)
        tries += 1


@kernel
def open_job(cells, n_steps):
    """Let the other threads in; wakes those that sleep. Nobody is inside when this is called."""
    for step in range(n_steps):
        for counter in range(REGIONS + 1):
            atomic_store(cells, STEPS + STEP_CELLS * step + 8 * counter, 0)
    atomic_add(cells, INSIDE, -CLOSED)
    announce(cells)


@kernel
def announce(cells):
    """Tell the other threads that there is news."""
    atomic_add(cells, JOBS, 1)
    if atomic_load(cells, PARKED) > 0:
        futex_wake(cells, JOBS)


@kernel
def close_job(cells):
    """Let nobody in any more, and wait for those who are inside."""
    atomic_add(cells, INSIDE, CLOSED)
    tries = 0
    while atomic_load(cells, INSIDE) != CLOSED:
        _pause(tries)
        tries += 1


@kernel
def enter_job(cells):
    """Go inside, unless it is closed; leave_job must follow in any case."""
    return atomic_add(cells, INSIDE, 1) < CLOSED


@kernel
def leave_job(cells):
    """Undo enter_job."""
    atomic_add(cells, INSIDE, -1)


@kernel
def wait_for_job(cells, seen):
    """The number of the first job after `seen`: spins, then yields, then sleeps until it is woken."""
    tries = 0
    while atomic_load(cells, JOBS) == seen:
        if tries < _SPINS + _YIELDS:
            _pause(tries)
        else:
            atomic_add(cells, PARKED, 1)
            futex_wait(cells, JOBS, seen)  # returns at once if the number has changed meanwhile
            atomic_add(cells, PARKED, -1)
        tries += 1
    return atomic_load(cells, JOBS)
