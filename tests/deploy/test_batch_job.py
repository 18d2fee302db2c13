"""The Kubernetes Job of deploy/: it is valid, and its pods' script, run as processes, answers the whole file."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML reads the manifest")

FILE = Path(__file__).parents[2] / "deploy" / "batch-job.yaml"


@pytest.fixture(scope="module")
def job():
    return yaml.safe_load(FILE.read_text())


@pytest.fixture(scope="module")
def container(job):
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


def test_the_parts_are_the_indices(job, container):
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] <= spec["completions"]
    assert {"name": "PARTS", "value": str(spec["completions"])} in container["env"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # backoffLimitPerIndex asks for it


def test_volumes_are_there(job, container):
    volumes = {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def run_pod(container, folder, index, parts):
    """The script of a pod, with the folder in place of /data, and parts that may be as small as two rows."""
    (script,) = container["args"]
    environment = {**os.environ, "JOB_COMPLETION_INDEX": str(index), "PARTS": str(parts)}
    script = script.replace("/data/", f"{folder}/").replace("python ", f"{sys.executable} ", 1)
    script = script.replace("--max-tokens 100", "--max-tokens 4 --shard-rows 2")
    return subprocess.run([*container["command"], script], env=environment, capture_output=True, text=True)


@pytest.mark.skipif(not find_spec("nbgpt.batch"), reason="the command `batch` is not there")
def test_pods_together_answer_the_file(container, tmp_path, home):
    rows = [{"number": i, "prompt": f"Number {i} was"} for i in range(5)] + [{"number": 5, "prompt": None}]
    for folder, parts in (("apart", 2), ("whole", 1)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for index in range(parts):
            done = run_pod(container, tmp_path / folder, index, parts)
            assert done.returncode == 0, done.stderr  # though a row failed
    answers = sorted((tmp_path / "apart").glob("answers-?????-of-?????.jsonl"))
    assert len(answers) == 2
    assert all(answer.stat().st_size for answer in answers)
    whole = (tmp_path / "whole" / "answers.jsonl").read_text()
    assert "".join(answer.read_text() for answer in answers) == whole
    assert len(whole.splitlines()) == 5


def test_a_pod_that_fails_says_so(container, tmp_path):
    assert run_pod(container, tmp_path, 0, 2).returncode not in (0, 3)  # there are no prompts
