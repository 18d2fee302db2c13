"""The CPUs that this process may use: their cores, their NUMA nodes, and how they are divided among workers.

A worker is a process with a model of its own. It is bound to its CPUs before it loads the model: Linux places a page of
memory on the node of the thread that first writes it, so the KV cache and the buffers are near. Weights are pages of a
file that all processes share; they lie where the first reader ran.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .cgroup import MEMBERSHIP, ROOT, groups

CPUS = Path("/sys/devices/system/cpu")
NODES = Path("/sys/devices/system/node")
Core = frozenset[int]
"""Logical CPUs of one physical core: several where it runs several hardware threads."""


def allowed_cpus() -> set[int]:
    """The logical CPUs that this process's affinity allows."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def cores_of(cpus: set[int], folder: Path = CPUS) -> list[Core]:
    """The physical cores of these logical CPUs; a core for each CPU where the system does not tell."""
    cores: dict[str, set[int]] = {}
    for cpu in sorted(cpus):
        name = str(cpu)
        with contextlib.suppress(OSError):
            name = (folder / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
        cores.setdefault(name, set()).add(cpu)
    return [frozenset(core) for core in cores.values()]


def nodes_of(cores: list[Core], folder: Path = NODES) -> list[list[Core]]:
    """The cores of each NUMA node; all in one where the system does not tell of each of them."""
    found = []
    try:
        for node in sorted(folder.glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
            cpus = _listed((node / "cpulist").read_text())
            found.append([core for core in cores if core <= cpus])
    except (OSError, ValueError):
        return [cores]
    nodes = [node for node in found if node]  # some nodes have memory alone
    return nodes if sum(map(len, nodes)) == len(cores) else [cores]


def _listed(text: str) -> set[int]:
    """The numbers of a list as Linux writes it, such as 0-3,8."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def cpu_quota(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """CPU time, in CPUs, that the control groups (version 2 or 1) allow; None: no limit."""
    read = {2: _quota_v2, 1: _quota_v1}
    quotas = [quota for version, group in groups("cpu", root, membership) for quota in read[version](group)]
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


def usable_cores(n_cores: int, quota: float | None) -> int:
    """How many of n_cores a quota of CPU time can keep busy; at least 1."""
    return max(1, n_cores if quota is None else min(n_cores, round(quota)))


def default_threads() -> int:
    """Physical cores that this process may use, within its control group's quota; at least 1."""
    return usable_cores(len(cores_of(allowed_cpus())), cpu_quota())


def worker_cpus(cpus_per_worker: int | None = None, n_workers: int | None = None) -> list[frozenset[int]]:
    """The logical CPUs of each worker that this machine should run: whole cores, on as few NUMA nodes as possible.

    Cores that a control group's quota cannot keep busy go unused, those of the last nodes first. Where the system does
    not tell of cores and nodes, there is one worker with everything.

    Args:
        cpus_per_worker: physical cores of a worker. Those that are left over on a node go to its workers; if a node has
            fewer, workers span nodes. None: a worker for each NUMA node.
        n_workers: how many; None: as many as there are cores for. Without cpus_per_worker they share all cores.

    Returns:
        Disjoint sets of CPUs, at least one.

    Raises:
        ValueError: a number is below 1, or there are not so many cores.
    """
    for name, value in (("cpus_per_worker", cpus_per_worker), ("n_workers", n_workers)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1, or None")
    cores = cores_of(allowed_cpus())
    nodes = _first_cores(nodes_of(cores), usable_cores(len(cores), cpu_quota()))
    in_order = [core for node in nodes for core in node]
    if n_workers is not None:
        wanted = n_workers * (cpus_per_worker or 1)
        if wanted > len(in_order):
            raise ValueError(f"{n_workers} workers need {wanted} cores; this process may use {len(in_order)}")
        return _divided(in_order[: wanted if cpus_per_worker else None], n_workers)
    if cpus_per_worker is None:
        return [worker for node in nodes for worker in _divided(node, 1)]
    parts = nodes if cpus_per_worker <= min(map(len, nodes)) else [in_order]
    return [worker for part in parts for worker in _divided(part, max(1, len(part) // cpus_per_worker))]


def _first_cores(nodes: list[list[Core]], n_cores: int) -> list[list[Core]]:
    kept = []
    for node in nodes:
        kept.append(node[:n_cores])
        n_cores -= len(kept[-1])
    return [node for node in kept if node]


def _divided(cores: list[Core], n_parts: int) -> list[frozenset[int]]:
    """The CPUs of n_parts with as many cores each, or one more."""
    ends = [i * len(cores) // n_parts for i in range(n_parts + 1)]
    return [frozenset[int]().union(*cores[ends[i] : ends[i + 1]]) for i in range(n_parts)]


def bind(cpus: frozenset[int]) -> None:
    """Let every thread of this process, and those that they start later, run on these logical CPUs only.

    Call it before a model is loaded. Then `default_threads` counts these CPUs' cores.

    Raises:
        OSError: the system cannot, or does not allow it.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise OSError("this system has no sched_setaffinity: run without binding to CPUs")
    os.sched_setaffinity(0, cpus)
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), cpus)
