"""Cores, NUMA nodes and quotas of made-up machines, how workers share them, and binding on this one."""

import os
import subprocess
import sys

import pytest

from nbgpt.backend import topology
from nbgpt.backend.topology import bind, cores_of, cpu_quota, default_threads, nodes_of, worker_cpus


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes the module see a machine: siblings of each CPU, CPUs of each node, allowed CPUs (default: all), quota."""

    def make(siblings, nodes=(), allowed=None, quota=None):
        for cpu, text in enumerate(siblings):
            write(tmp_path / f"cpu/cpu{cpu}/topology/thread_siblings_list", text + "\n")
        for node, text in enumerate(nodes):
            write(tmp_path / f"node/node{node}/cpulist", text + "\n")
        (tmp_path / "node").mkdir(exist_ok=True)
        write(tmp_path / "node/online", "0-1\n")
        cpus = set(range(len(siblings))) if allowed is None else allowed
        monkeypatch.setattr(topology, "allowed_cpus", lambda: cpus)
        monkeypatch.setattr(topology, "cpu_quota", lambda: quota)
        monkeypatch.setattr(cores_of, "__defaults__", (tmp_path / "cpu",))
        monkeypatch.setattr(nodes_of, "__defaults__", (tmp_path / "node",))

    return make


PAIRS = [f"{cpu % 8},{cpu % 8 + 8}" for cpu in range(16)]  # 8 cores of two hardware threads
HALVES = ["0-3,8-11", "4-7,12-15"]  # of those, on two nodes


# --- Cores, nodes, quotas ---------------------------------------------------------------------------------------------


def test_cores(tmp_path):
    for cpu, siblings in enumerate(("0,4", "1,5", "2,6", "3,7") * 2):
        write(tmp_path / f"cpu{cpu}/topology/thread_siblings_list", siblings + "\n")
    assert cores_of(set(range(8)), tmp_path) == [{0, 4}, {1, 5}, {2, 6}, {3, 7}]
    assert cores_of({0, 4}, tmp_path) == [{0, 4}]
    assert cores_of({0, 1, 5}, tmp_path) == [{0}, {1, 5}]


def test_cores_where_the_system_does_not_say(tmp_path):
    assert cores_of({0, 1, 2}, tmp_path) == [{0}, {1}, {2}]


@pytest.mark.parametrize("lists", [[], ["0-1"], ["0,1,2-x"]])  # nothing, not all of the cores, nonsense
def test_nodes_where_the_system_does_not_say(tmp_path, lists):
    for node, text in enumerate(lists):
        write(tmp_path / f"node{node}/cpulist", text)
    cores = [frozenset({cpu}) for cpu in range(4)]
    assert nodes_of(cores, tmp_path) == [cores]


def test_nodes_in_the_order_of_their_numbers(tmp_path):
    for node in range(12):
        write(tmp_path / f"node{node}/cpulist", f"{node}\n")
    write(tmp_path / "node12/cpulist", "\n")  # memory alone
    cores = [frozenset({cpu}) for cpu in range(12)]
    assert nodes_of(cores, tmp_path) == [[core] for core in cores]


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        ({}, None),
        ({"app/job": "max 100000"}, None),
        ({"app/job": "150000 100000"}, 1.5),
        ({"app/job": "400000 100000", "app": "200000 100000"}, 2.0),
        ({"app/job": "max 100000", ".": "50000 100000"}, 0.5),
        ({"app/job": "nonsense", "app": "300000 100000"}, 3.0),
        ({"other": "100000 100000"}, None),
    ],
)
def test_quota_of_version_2_groups(tmp_path, limits, quota):
    write(tmp_path / "membership", "0::/app/job\n")
    for group, limit in limits.items():
        write(tmp_path / "cgroup" / group / "cpu.max", limit + "\n")
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "membership") == quota


@pytest.mark.parametrize(("limit", "quota"), [("-1", None), ("250000", 2.5), ("nonsense", None)])
@pytest.mark.parametrize("group", ["docker/0af3", "."])
def test_quota_of_version_1_groups(tmp_path, group, limit, quota):
    """A container sees its own group as the root."""
    write(tmp_path / "membership", "5:memory:/docker/0af3\n4:cpu,cpuacct:/docker/0af3\n")
    write(tmp_path / "cgroup/cpu" / group / "cpu.cfs_quota_us", limit + "\n")
    write(tmp_path / "cgroup/cpu" / group / "cpu.cfs_period_us", "100000\n")
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "membership") == quota


def test_no_groups_no_quota(tmp_path):
    assert cpu_quota(tmp_path, tmp_path / "missing") is None


# --- Threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quota", "threads"), [(None, 8), (16.0, 8), (3.6, 4), (1.5, 2), (0.2, 1)])
def test_default_threads_respect_the_quota(machine, quota, threads):
    machine(PAIRS, quota=quota)
    assert default_threads() == threads


def test_default_threads_respect_the_affinity(machine):
    machine(PAIRS, allowed={0, 8, 1})
    assert default_threads() == 2


def test_default_threads_here():
    assert 1 <= default_threads() <= len(os.sched_getaffinity(0))


# --- Workers ----------------------------------------------------------------------------------------------------------


def test_a_worker_for_each_node(machine):
    machine(PAIRS, HALVES)
    assert worker_cpus() == [{0, 1, 2, 3, 8, 9, 10, 11}, {4, 5, 6, 7, 12, 13, 14, 15}]


def test_one_worker_where_nothing_is_known(machine):
    machine(PAIRS)
    assert worker_cpus() == [set(range(16))]


@pytest.mark.parametrize(
    ("cores", "workers"),
    [
        (1, [{cpu, cpu + 8} for cpu in range(8)]),
        (2, [{0, 1, 8, 9}, {2, 3, 10, 11}, {4, 5, 12, 13}, {6, 7, 14, 15}]),
        (3, [{0, 1, 2, 3, 8, 9, 10, 11}, {4, 5, 6, 7, 12, 13, 14, 15}]),  # the fourth core of a node is not left idle
        (5, [set(range(16))]),  # more than a node has
        (99, [set(range(16))]),
    ],
)
def test_workers_of_some_cores(machine, cores, workers):
    machine(PAIRS, HALVES)
    assert worker_cpus(cores) == workers


def test_workers_share_what_the_affinity_allows(machine):
    machine(PAIRS, HALVES, allowed={2, 3, 11, 4})
    assert worker_cpus() == [{2, 3, 11}, {4}]


@pytest.mark.parametrize(
    ("quota", "workers"),
    [(3.0, [{0, 1, 2, 8, 9, 10}]), (5.0, [{0, 1, 2, 3, 8, 9, 10, 11}, {4, 12}]), (0.5, [{0, 8}])],
)
def test_a_quota_fills_node_after_node(machine, quota, workers):
    machine(PAIRS, HALVES, quota=quota)
    assert worker_cpus() == workers


@pytest.mark.parametrize(
    ("cores", "n", "workers"),
    [
        (None, 1, [set(range(16))]),
        (None, 2, [{0, 1, 2, 3, 8, 9, 10, 11}, {4, 5, 6, 7, 12, 13, 14, 15}]),
        (2, 3, [{0, 1, 8, 9}, {2, 3, 10, 11}, {4, 5, 12, 13}]),
        (None, 3, [{0, 1, 8, 9}, {2, 3, 4, 10, 11, 12}, {5, 6, 7, 13, 14, 15}]),
    ],
)
def test_a_number_of_workers(machine, cores, n, workers):
    machine(PAIRS, HALVES)
    assert worker_cpus(cores, n) == workers


@pytest.mark.parametrize(
    ("cores", "n", "message"),
    [
        (0, None, "cpus_per_worker is 0; it must be at least 1"),
        (None, 0, "n_workers is 0; it must be at least 1"),
        (None, 9, "9 workers need 9 cores; this process may use 8"),
        (4, 3, "3 workers need 12 cores"),
    ],
)
def test_workers_that_cannot_be(machine, cores, n, message):
    machine(PAIRS)
    with pytest.raises(ValueError, match=message):
        worker_cpus(cores, n)


# --- Binding ----------------------------------------------------------------------------------------------------------

BOUND = """
import os, threading
from pathlib import Path
from nbgpt.backend.topology import bind, default_threads, worker_cpus

done, seen = threading.Event(), []
earlier = threading.Thread(target=lambda: (done.wait(), seen.append(os.sched_getaffinity(0))))
earlier.start()
cpus = worker_cpus(1)[-1]
bind(cpus)
done.set()
earlier.join()
later = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
later.start()
later.join()
assert os.sched_getaffinity(0) == cpus and seen == [cpus, cpus], (cpus, seen)
assert worker_cpus() == [cpus] and default_threads() == 1
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind to CPUs")
def test_binding_holds_for_earlier_and_later_threads():
    subprocess.run([sys.executable, "-c", BOUND], check=True)


def test_binding_where_the_system_cannot(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(OSError, match="run without binding"):
        bind(frozenset({0}))
