import os
import signal
import threading
import time
from pathlib import Path

import pytest
from batch_rows import prompts

from nbgpt.batch.job import Job
from nbgpt.batch.processes import ModelSource, Processes, WorkerDiedError, divided
from nbgpt.batch.run import Files, InProcess, run

JOB = Job(prompt="{text}", options={"max_tokens": 60})


@pytest.fixture
def cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4, 12)))


@pytest.mark.parametrize(
    ("n", "size", "is_bound", "n_threads", "sets"),
    [
        (None, None, True, 8, [range(4, 12)]),
        (2, None, True, 4, [range(4, 8), range(8, 12)]),
        (None, 3, True, 3, [range(4, 7), range(7, 10)]),
        (3, None, True, 2, [range(4, 6), range(6, 8), range(8, 10)]),
        (2, 3, False, 3, [None, None]),
        (20, None, False, 1, [None] * 20),
    ],
)
def test_cpus_and_memory_are_divided(cpus, n, size, is_bound, n_threads, sets):
    source, found = divided(ModelSource(kv_memory=1200), n, size, is_bound)
    assert found == [own and frozenset(own) for own in sets]
    assert (source.threads, source.kv_memory) == (n_threads, 1200 // len(sets))


def test_more_cpus_than_there_are(cpus):
    with pytest.raises(ValueError, match="3 workers of 4 CPUs are 12; this process may use 8"):
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
