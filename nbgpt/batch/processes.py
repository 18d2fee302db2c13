"""Several processes of this machine, each with a model of its own and cores of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection
from typing import Any

from ..backend.topology import bind, cores_of, worker_cpus
from ..conversion.registry import open_model
from ..engine.kv_cache import KVDtype
from ..engine.memory import default_kv_memory
from ..model import Model, load
from .index import Shard
from .job import Job
from .progress import Progress
from .table import Table
from .worker import Finished, Worker, answers_of, identity_of

_AHEAD = 2
"""Shards that a worker has been given: the one it works on, and the next."""
_GLANCE = 0.2
"""Seconds after which a wait for workers looks for Ctrl-C."""


@dataclass(frozen=True)
class ModelSource:
    """The arguments of `nbgpt.load`."""

    model: str | None = None
    dtype: str | None = None
    threads: int | None = None
    kv_dtype: KVDtype = "float32"
    kv_memory: int | None = None

    def identity(self) -> dict[str, Any]:
        """What names the model; a checkpoint is converted first. Raises as `load`."""
        return identity_of(open_model(self.model, self.dtype), self.kv_dtype)

    def load(self) -> Model:
        """The model. Raises as `nbgpt.load`."""
        return load(self.model, self.dtype, self.threads, self.kv_dtype, self.kv_memory)

    def check(self, job: Job) -> None:
        """Raise ValueError, TypeError or ImportError for a job that the model cannot do."""
        with self.load() as model:
            answers_of(model, job, batch_size=1)

    def worker(self, job: Job, table: Table, batch_size: int) -> Worker:
        """A worker with this model. Raises as `load`, and as `check`."""
        return Worker(answers_of(self.load(), job, batch_size), job, table)


def divided(
    source: ModelSource, n_workers: int | None, cpus_per_worker: int | None, is_bound: bool
) -> tuple[ModelSource, list[frozenset[int] | None]]:
    """Divide the CPUs and the memory of this machine among workers.

    Args:
        source: the model, with what all workers together may take.
        n_workers: processes; None: as many as there are cores for.
        cpus_per_worker: cores of each; None: those of a NUMA node, or all cores divided by n_workers.
        is_bound: each worker keeps to its CPUs.

    Returns:
        The model of one worker, and the CPUs that each is bound to.

    Raises:
        ValueError: there are not so many cores.
    """
    sets = worker_cpus(cpus_per_worker, n_workers)
    threads = source.threads or min(len(cores_of(set(cpus))) for cpus in sets)
    memory = (source.kv_memory or default_kv_memory()) // len(sets)
    return replace(source, threads=threads, kv_memory=memory), [cpus if is_bound else None for cpus in sets]


class WorkerDiedError(OSError):
    """A process ended before its work."""


class Processes:
    """Works on shards in several processes."""

    def __init__(self, source: ModelSource, cpus: Sequence[frozenset[int] | None], batch_size: int) -> None:
        """cpus: for each process, the CPUs that it is bound to; None: those that this process may use."""
        self._source, self._cpus, self._batch_size = source, cpus, batch_size
        self.model = source.identity()

    def check(self, job: Job) -> None:
        """Raise ValueError, TypeError or ImportError for a job that the model cannot do."""
        self._source.check(job)

    def run(self, job: Job, table: Table, shards: Iterator[Shard], progress: Progress) -> Iterator[Finished]:
        """Work on shards -> each as it is finished. Raises WorkerDiedError."""
        context = multiprocessing.get_context("spawn")
        cpus = context.SimpleQueue()
        for own in self._cpus:
            cpus.put(own)
        given = self._source, job, table, self._batch_size, cpus
        others = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(len(self._cpus), context, _start, given)
        with _held_interrupts() as let_interrupt:
            try:
                for finished in _in_flight(pool, shards, _AHEAD * len(self._cpus), let_interrupt):
                    progress.add(finished.n_rows, finished.prompt_tokens, finished.new_tokens)
                    yield finished
            except BrokenProcessPool:
                message = "a worker process has ended before its work; the same command goes on where it was"
                raise WorkerDiedError(message) from None
            finally:
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()  # what it is working on is not wanted any more
                pool.shutdown(cancel_futures=True)


@contextmanager
def _held_interrupts() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the function is called that this yields.

    In the middle of a call of a Future the exception would leave a lock taken, on which the pool waits for ever.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: None
        return
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))

    def let_interrupt() -> None:
        if seen:
            raise KeyboardInterrupt

    try:
        yield let_interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _in_flight(
    pool: ProcessPoolExecutor, shards: Iterator[Shard], n: int, let_interrupt: Callable[[], None]
) -> Iterator[Finished]:
    """Give a pool up to n shards at a time -> each as it is finished."""
    open_: set[Future[Finished]] = set()
    while True:
        while len(open_) < n and (shard := next(shards, None)):
            open_.add(pool.submit(_work, shard))
        if not open_:
            return
        done, open_ = wait(open_, _GLANCE, return_when=FIRST_COMPLETED)
        for one in done:
            yield one.result()
        let_interrupt()


_worker: Worker | Exception | None = None
"""Of a process of the pool; or why it has none, which an initializer of the pool cannot tell the parent."""


def _start(source: ModelSource, job: Job, table: Table, batch_size: int, cpus: Any) -> None:
    """Begin a process of the pool: take CPUs, then load the model, so that its memory is near them."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        if own := cpus.get():
            bind(own)
        _worker = source.worker(job, table, batch_size)
    except Exception as error:  # told by `_work`
        _worker = error


def _end_with_parent() -> None:
    """End this process when its parent has died, which may have been killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _work(shard: Shard) -> Finished:
    if not isinstance(_worker, Worker):
        raise WorkerDiedError(f"a worker process cannot begin: {_worker or type(_worker).__name__}")
    (finished,) = _worker.run([shard])
    return finished
