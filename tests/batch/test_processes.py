import os
import signal
import threading
import time
from pathlib import Path

import pytest
from batch_rows import prompts

from nbgpt.batch import processes
from nbgpt.batch.job import Job
from nbgpt.batch.processes import ModelSource, Processes, WorkerDiedError, divided
from nbgpt.batch.run import Files, InProcess, run

JOB = Job(prompt="{text}", options={"max_tokens": 60})


TWO_NODES = [frozenset(range(4)), frozenset(range(4, 8))]


@pytest.mark.parametrize("is_bound", [True, False])
def test_cpus_and_memory_are_divided(monkeypatch, is_bound):
    asked = []
    monkeypatch.setattr(processes, "worker_cpus", lambda *args: asked.append(args) or TWO_NODES)
    monkeypatch.setattr(processes, "cores_of", lambda cpus: [cpus] * (len(cpus) // 2))
    source, found = divided(ModelSource(kv_memory=1200), 2, 2, is_bound)
    assert asked == [(2, 2)]
    assert found == (TWO_NODES if is_bound else [None, None])
    assert (source.threads, source.kv_memory) == (2, 600)
    assert divided(ModelSource(threads=3), None, None, is_bound)[0].threads == 3


def test_a_worker_that_cannot_begin_says_why(model, model_file, write, tmp_path):
    files = Files(source=str(write(prompts(3))), output=tmp_path / "out.jsonl")
    runner = Processes(ModelSource(str(model_file), threads=1), [frozenset([10**4])], 8)
    with pytest.raises(WorkerDiedError, match=r"a worker process cannot begin: .*Invalid argument"):
        run(files, JOB, runner)


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
