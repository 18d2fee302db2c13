"""Shards of a batch on a cluster: Ray Data's `map_batches` over actors, each with a model of its own."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..backend.topology import worker_cpus
from ..batch.index import Shard
from ..batch.job import Job
from ..batch.processes import ModelSource
from ..batch.progress import Progress
from ..batch.table import Table
from ..batch.worker import Finished
from ..conversion.registry import open_model
from ..engine.memory import default_kv_memory

LOCAL = "local"
_CONNECT_SECONDS = 10
_INSTALL = 'this needs the package ray: pip install "nbgpt[ray]"'


class ClusterError(OSError):
    """Ray could not do the work."""


class Cluster:
    """Works on shards by actors of a Ray cluster.

    An actor reads its shards from the files of the input, and maps the weights from their native file: both must have
    the same path on every node. Answers come back through Ray's object store, weights never do. Ray starts actors that
    have died again, and gives the shards of lost actors and nodes to others; answers do not depend on who gives them.
    """

    def __init__(self, source: ModelSource, address: str, cpus_per_worker: int | None, batch_size: int) -> None:
        """Connect to a cluster, or start one of this machine alone.

        Args:
            source: the model.
            address: of the cluster; `local`: start one here.
            cpus_per_worker: of an actor; None: those of a NUMA node, the smallest that the cluster has.
            batch_size: texts that grow together in an actor.

        Raises:
            ImportError: Ray is not installed.
            OSError: there is no cluster at this address.
        """
        weights = open_model(source.model, source.dtype)
        native = weights.path.absolute()
        self._source = replace(source, model=str(native), dtype=None) if native.is_file() else source
        self.model = self._source.identity()
        connect(address)
        self._cpus, self._batch_size = cpus_per_worker or _smallest_numa_node(), batch_size

    def check(self, job: Job) -> None:
        """Raise ValueError, TypeError or ImportError for a job that the model cannot do."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        shares = [kv_share(self._source.kv_memory, self._cpus, one) for one in nodes if one.get("CPU")]
        given = self._source.kv_memory is not None  # the default is that of each node, which is not known here
        (replace(self._source, kv_memory=min(shares)) if given and shares else self._source).check(job)

    def run(self, job: Job, table: Table, shards: Iterator[Shard], progress: Progress) -> Iterator[Finished]:
        """Work on shards -> each as it is finished. Raises ClusterError."""
        from ray import data, exceptions

        items = [{"shard": pickle.dumps(shard)} for shard in shards]
        if not items:
            return
        given = {"source": replace(self._source, threads=self._source.threads or self._cpus), "job": job}
        given |= {"table": table, "cpus": self._cpus, "batch_size": self._batch_size}
        n_actors = max(1, min(len(items), _n_actors(self._cpus)))  # one is enough to go on, if nodes are lost
        found = data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Shards,
            fn_constructor_kwargs=given,
            batch_size=1,
            num_cpus=self._cpus,
            compute=data.ActorPoolStrategy(min_size=1, max_size=n_actors, initial_size=n_actors),
        )
        try:
            for row in found.iter_rows():
                finished: Finished = pickle.loads(row["finished"])
                progress.add(finished.n_rows, finished.prompt_tokens, finished.new_tokens)
                yield finished
        except exceptions.RayError as error:
            raise ClusterError(f"Ray: {_reason(error)}; the same command goes on where it was") from None


class _Shards:
    """What `map_batches` runs in an actor."""

    def __init__(self, source: ModelSource, job: Job, table: Table, cpus: int, batch_size: int) -> None:
        import ray

        here = ray.get_runtime_context().get_node_id()
        node = next(node for node in ray.nodes() if node["NodeID"] == here)
        memory = kv_share(source.kv_memory, cpus, node["Resources"])
        self._worker = replace(source, kv_memory=memory).worker(job, table, batch_size)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        shards = map(pickle.loads, batch["shard"])
        return {"finished": [pickle.dumps(finished) for finished in self._worker.run(shards)]}


def kv_share(kv_memory: int | None, cpus: int, resources: Mapping[str, float]) -> int:
    """Bytes of an actor's KV cache: a part of what the actors of a node take together, as it has of its CPUs.

    Args:
        kv_memory: of a node; None: the default of this machine.
        cpus: of the actor.
        resources: of the node, as Ray names them.
    """
    there = max(cpus, int(resources.get("CPU", 0)))
    return (kv_memory or default_kv_memory()) * cpus // there


def connect(address: str) -> None:
    """Connect this process to a cluster, unless it is connected. Raises ImportError, OSError."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise ImportError(_INSTALL) from None
    if not ray.is_initialized():
        _check_reachable(address)
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ part tells of every actor
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        ray.init(address, include_dashboard=False, **quiet) if address == LOCAL else ray.init(address, **quiet)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, too


def _check_reachable(address: str) -> None:
    """Raise ClusterError if nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in address:
        try:
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        except OSError as error:
            raise ClusterError(f"no Ray cluster answers at {address}: {error.strerror or error}") from None


def _smallest_numa_node() -> int:
    """CPUs of the smallest NUMA node in the cluster, within what Ray gives out of its machine."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in ray.nodes():
        if node["Alive"] and (cpus := int(node["Resources"].get("CPU", 0))):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[ray.remote(_numa_node).options(num_cpus=0, scheduling_strategy=there).remote()] = cpus
    return min((min(cpus, ray.get(found)) for found, cpus in asked.items()), default=1)


def _numa_node() -> int:
    """Logical CPUs of the smallest NUMA node of this machine."""
    return min(map(len, worker_cpus()))


def _n_actors(cpus: int) -> int:
    """How many actors of so many CPUs the cluster has room for."""
    import ray

    return sum(int(node["Resources"].get("CPU", 0)) // cpus for node in ray.nodes() if node["Alive"])


def _reason(error: Exception) -> str:
    """The last line of an error of Ray's, which says what happened in the actor."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
