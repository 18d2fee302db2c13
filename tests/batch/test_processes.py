import os
import signal
import threading
import time
from pathlib import Path

import pytest
from batch_rows import prompts

from nbgpt.backend import topology
from nbgpt.batch.job import Job
from nbgpt.batch.processes import ModelSource, Processes, WorkerDiedError, divided
from nbgpt.batch.run import Files, InProcess, run

JOB = Job(prompt="{text}", options={"max_tokens": 60})


@pytest.fixture
def cores(monkeypatch):
    """8 cores on two NUMA nodes."""
    nodes = [[frozenset([cpu]) for cpu in range(first, first + 4)] for first in (0, 4)]
    monkeypatch.setattr(topology, "cores_of", lambda cpus: [core for node in nodes for core in node])
    monkeypatch.setattr(topology, "nodes_of", lambda cores: nodes)
    monkeypatch.setattr(topology, "cpu_quota", lambda: None)


@pytest.mark.parametrize(
    ("n", "size", "is_bound", "n_threads", "sets"),
    [
        (None, None, True, None, [range(4), range(4, 8)]),  # a worker for each node
        (1, None, True, None, [range(8)]),
        (None, 2, True, None, [range(2), range(2, 4), range(4, 6), range(6, 8)]),
        (2, 3, True, None, [range(3), range(3, 6)]),
        (2, 3, False, 3, [None, None]),
        (None, 4, False, 4, [None, None]),
        (3, None, False, 2, [None] * 3),
        (20, None, False, 1, [None] * 20),
    ],
)
def test_cores_and_memory_are_divided(cores, n, size, is_bound, n_threads, sets):
    source, found = divided(ModelSource(kv_memory=1200), n, size, is_bound)
    assert found == [own and frozenset(own) for own in sets]
    assert (source.threads, source.kv_memory) == (n_threads, 1200 // len(sets))


def test_more_cores_than_there_are(cores):
    with pytest.raises(ValueError, match="3 workers need 12 cores; this process may use 8"):
        divided(ModelSource(), 3, 4, True)


def test_a_worker_that_dies_ends_the_run_and_the_next_goes_on(model, model_file, write, tmp_path):
    rows = write(prompts(120))
    files = Files(source=str(rows), output=tmp_path / "out.jsonl", shard_rows=6)
    _, whole = run(Files(source=str(rows), output=tmp_path / "whole.jsonl", shard_rows=6), JOB, InProcess(model, 8))
    cpus = [frozenset([cpu]) for cpu in sorted(os.sched_getaffinity(0))[:1]]
    runner = Processes(ModelSource(str(model_file), threads=1), cpus, 8)

    def kill():
        while not list(tmp_path.glob("out.parts/*[0-9].jsonl")):
            time.sleep(0.001)
        children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
        workers = [child for one in children for child in one.read_text().split()]
        for worker in workers:
            if b"spawn_main" in Path(f"/proc/{worker}/cmdline").read_bytes():
                os.kill(int(worker), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(WorkerDiedError, match="the same command goes on where it was"):
        run(files, JOB, runner)
    killer.join()
    summary, output = run(files, JOB, runner)
    assert summary.resumed
    assert output.path.read_bytes() == whole.path.read_bytes()
