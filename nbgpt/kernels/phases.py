"""Phases: parallel loops over work items, each with a barrier at its end.

Threads claim the work items of a phase one by one. A thread goes on to the next phase when all items are done, by
whichever threads. So a thread that the system suspends delays the others only while it holds an item: they do the rest
of its share, and when it resumes it finds nothing to claim. No thread waits for Python's lock.

Each phase of a job has counters of its own, found by its number: see COUNTERS_OF_PHASE in abi/job.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..abi.job import COUNTERS_OF_PHASE, PHASES, REGIONS
from ..simd import atomic_add, atomic_load, kernel, relax, yield_cpu
from .fields import counters, n_threads

SPINS = 3000
"""Tries before a waiting thread yields its core, some tens of microseconds: phases are balanced better than that, and a
scheduler's time slice is longer."""


@kernel
def pause(tries):
    """Wait a moment: spin first, then yield the core, which the awaited thread may need."""
    if tries < SPINS:
        relax()
    else:
        yield_cpu()


@kernel
def claim_next(job, phase, n_items, thread):
    """The lowest item that no thread has claimed; n_items or more if there is none."""
    return atomic_add(counters(job), PHASES + COUNTERS_OF_PHASE * phase + 8, 1)


@kernel
def claim_near(job, phase, n_items, thread):
    """The next item of the thread's own region, then of the other regions; n_items if there is none.

    A thread so continues with the memory behind its last item, which it has prefetched.
    """
    regions = min(n_threads(job), REGIONS)
    for k in range(regions):
        region = (thread + k) % regions
        first, last = region * n_items // regions, (region + 1) * n_items // regions
        claimed = PHASES + COUNTERS_OF_PHASE * phase + 8 * (region + 1)
        if first + atomic_load(counters(job), claimed) < last:
            item = first + atomic_add(counters(job), claimed, 1)
            if item < last:
                return item
    return n_items


@kernel
def _nothing(job, layer, thread):
    pass


@kernel
def _no_sizes(job):
    return ()


def make_phase(
    n_items: Any,
    work: Any,
    claim: Any = claim_next,
    prepare: Any = _nothing,
    finish: Any = _nothing,
    sizes: Any = _no_sizes,
) -> Any:
    """A kernel (job, layer, phase, thread): one thread's share of a phase.

    n_items(job): number of work items; 0 skips the phase.
    work(job, layer, item, thread, *sizes): computes one item.
    prepare(job, layer, thread): runs once in each thread that claims an item, before its first.
    finish(job, layer, thread): runs once in each such thread, after its last.
    sizes(job): a tuple that is computed once, for every item.
    """

    @kernel
    def run(job, layer, phase, thread):
        n, sizes_of_job = n_items(job), sizes(job)
        if n == 0:
            return
        item = claim(job, phase, n, thread)
        has_work = item < n
        if has_work:
            prepare(job, layer, thread)
        done = PHASES + COUNTERS_OF_PHASE * phase
        while item < n:
            work(job, layer, item, thread, *sizes_of_job)
            atomic_add(counters(job), done, 1)  # a thread that reads n here also sees what the items wrote
            item = claim(job, phase, n, thread)
        if has_work:
            finish(job, layer, thread)
        tries = 0
        while atomic_load(counters(job), done) < n:
            pause(tries)
            tries += 1

    return run


def in_order(phases: Sequence[Any]) -> Any:
    """A kernel (job, layer, phase, thread) that runs phases in order, with the numbers phase, phase + 1, ..."""
    head, *tail = phases
    if not tail:
        return head
    rest = in_order(tail)

    @kernel
    def run(job, layer, phase, thread):
        head(job, layer, phase, thread)
        rest(job, layer, phase + 1, thread)

    return run
