"""The answers that actors give are those of one process, whoever of them dies meanwhile."""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from batch_rows import prompts

import nbgpt
from nbgpt.batch.job import Job
from nbgpt.batch.processes import ModelSource
from nbgpt.batch.run import Files, InProcess, run
from nbgpt.cli.main import main
from nbgpt.engine.memory import default_kv_memory

JOB = Job(prompt="{text}", options={"max_tokens": 60})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*prompts(90), {"no": "text"}]))
    return path


@pytest.fixture(scope="module")
def expected(source, model_file, tmp_path_factory):
    """The output and the errors of one process."""
    path = tmp_path_factory.mktemp("expected") / "out.jsonl"
    with nbgpt.load(model_file) as model:
        _, output = run(Files(source=str(source), output=path, shard_rows=6), JOB, InProcess(model, 8))
    return output.path.read_bytes(), output.errors_path.read_bytes()


class Disturbed:
    """A runner, and something that happens when the first shard is finished."""

    def __init__(self, runner, happen):
        self._runner, self._happen, self.model, self.n_later = runner, happen, runner.model, 0

    def check(self, job):
        self._runner.check(job)

    def run(self, *args):
        found = self._runner.run(*args)
        yield next(found)
        self._happen()
        for finished in found:
            self.n_later += 1
            yield finished


@pytest.fixture
def answered(cluster, source, model_file, tmp_path):
    """Runs on the cluster -> the output, the errors."""
    from nbgpt.ray.cluster import Cluster

    def answered(happen):
        runner = Disturbed(Cluster(ModelSource(str(model_file)), cluster.address, 1, 8), happen)
        summary, output = run(Files(source=str(source), output=tmp_path / "out.jsonl", shard_rows=6), JOB, runner)
        assert (summary.rows, summary.answered, summary.failed, runner.n_later) == (91, 91, 1, 15)
        return output.path.read_bytes(), output.errors_path.read_bytes()

    return answered


def actors():
    """Process ids of the actors that work on shards, among the descendants of this process."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    mine = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in mine} - mine:
        mine |= more
    commands = {process: Path(f"/proc/{process}/cmdline").read_bytes() for process in mine}
    return [process for process, command in commands.items() if b"MapWorker(MapBatches(_Shards))" in command]


def wait_for_two():
    """Until both nodes have an actor -> their process ids."""
    while len(found := actors()) < 2:
        time.sleep(0.01)
    return found


def test_two_actors(answered, expected):
    assert answered(wait_for_two) == expected


def test_an_actor_is_killed(answered, expected):
    killed = []

    def kill():
        killed.append(wait_for_two()[0])
        os.kill(killed[0], signal.SIGKILL)

    assert answered(kill) == expected
    assert killed


def test_a_job_that_cannot_be_done_is_refused_before_it_begins(cluster, source, model_file, tmp_path, capsys):
    command = "batch", source, "-o", tmp_path / "out.jsonl", "-m", model_file, "--ray", cluster.address, "--top-k", "-1"
    assert main(list(map(str, command))) == 2
    assert capsys.readouterr().err.startswith("nbgpt: --top-k is -1; it must be a whole number")


def test_an_actor_has_the_cpus_of_a_numa_node(cluster, model_file):
    """Within what Ray has of its machine: the nodes of this cluster have a CPU each."""
    from nbgpt.ray.cluster import Cluster

    assert Cluster(ModelSource(str(model_file)), cluster.address, None, 8)._cpus == 1


def test_a_node_is_lost(answered, expected, cluster):
    def remove():
        wait_for_two()
        cluster.remove_node(next(node for node in cluster.list_all_nodes() if node is not cluster.head_node))

    assert answered(remove) == expected


def test_actors_divide_the_kv_memory_of_their_node():
    from nbgpt.ray import cluster

    assert cluster.kv_share(1200, 4, {"CPU": 16.0}) == 300
    assert cluster.kv_share(1200, 4, {"CPU": 2.0}) == 1200
    assert cluster.kv_share(None, 1, {"CPU": 2.0}) == default_kv_memory() // 2


def test_nobody_at_the_address():
    pytest.importorskip("ray.data", reason='Ray Data is not installed: pip install "nbgpt[ray]"')
    from nbgpt.ray import cluster

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(OSError, match=f"no Ray cluster answers at {address}: Connection refused"):
            cluster._check_reachable(address)


def test_without_ray(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["batch", str(source), "-o", str(tmp_path / "out.jsonl"), "--ray", "local"]) == 1
    assert 'install "nbgpt[ray]"' in capsys.readouterr().err
