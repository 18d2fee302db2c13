import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batch_rows import prompts, read
from command_line import start
from folders import write_random_model


@pytest.fixture(scope="module")
def tiny(folder):
    return write_random_model(folder / "tiny.safetensors", "int8")


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in prompts(40)))
    return path


@pytest.fixture
def batch(run, tiny, tmp_path):
    """Runs the command -> exit code, standard output, standard error."""

    def batch(source, *arguments, name="out.jsonl", stdin=b""):
        given = ("batch", source, "-o", tmp_path / name, "-m", tiny, *arguments)
        return run(*given, stdin=stdin)

    return batch


def test_generate(batch, rows, tmp_path):
    code, out, err = batch(rows, "--max-tokens", 5, "--json", "--seed", 3, "--batch-size", 7)
    assert code == 0
    summary = json.loads(out)
    assert {name: summary[name] for name in ("rows", "answered", "failed", "new_tokens")} == {
        "rows": 40,
        "answered": 40,
        "failed": 0,
        "new_tokens": 200,
    }
    assert summary["output"] == str(tmp_path / "out.jsonl")
    assert "nbgpt: 40 rows, 0 failed; " in err
    lines = read(tmp_path / "out.jsonl")
    assert [line["n"] for line in lines] == [row["n"] for row in prompts(40)]
    assert {line["answer"]["completion_tokens"] for line in lines} == {5}


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (("--task", "score"), {"total", "mean", "tokens", "texts", "logprobs"}),
        (("--task", "embed", "--pooling", "last", "--no-normalize"), {"embedding"}),
        (("--task", "rank", "--choice", " a", "--choice", " the"), {"ranked"}),
        (("--task", "choices", "--choice", " a", "--choice", " the", "--normalize"), {"choice", "probabilities"}),
        (
            ("--choice", " a", "--choice", " the"),
            {"text", "finish_reason", "prompt_tokens", "completion_tokens", "seed"},
        ),
    ],
)
def test_tasks(batch, rows, tmp_path, arguments, fields):
    assert batch(rows, *arguments, "--prompt", "{n}: {text}")[0] == 0
    assert all(line["answer"].keys() == fields for line in read(tmp_path / "out.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pooling", "last"), "--pooling is given, which is for --task embed"),
        (("--task", "score", "--top-k", 3), "--top-k is given, which is for --task generate"),
        (("--task", "rank"), "--task rank needs --choice, two or more, or --choices-column, and not both"),
        (("--task", "classify"), "tiny has no classification head (score.weight); "),
        (("--shard-rows", 0), "--shard-rows is 0; it must be at least 1"),
        (("--max-errors", -1), "--max-errors is -1; it must be at least 0"),
        (("--prompt", "{txet}"), "rows.jsonl, line 1: there is no column 'txet': there are 'n', 'text'"),
        (("--prompt", "{"), "--prompt is '{': Single '{' encountered in format string; write {{ and }} for braces"),
        (("--top-k", -1), "--top-k is -1; it must be"),
        (("--seed", -1), "--seed is -1; it must be"),
        (("--shard", "3/3"), "argument --shard: '3/3' is no part: 0/8 is the first of 8, 7/8 the last"),
        (("--ray", "local", "--workers", 2), "--workers and --bind are for this machine; on Ray"),
        (("--batch-size", 0), "--batch-size is 0; it must be"),
        (("--batch-size", -3), "--batch-size is -3; it must be"),
        (("--kv-memory", "60K"), "a whole context of 200 tokens takes"),
        (("--task", "rank", "--choice", "a"), "--task rank needs --choice, two or more"),
        (("--task", "choices", "--choice", "a", "--choice", ""), "--choice is ''; a choice has at least one character"),
        (("--choice", ""), "--choice is ''; a choice has at least one character"),
        (("--workers", 0), "argument --workers: '0' is not a whole number from 1 on"),
    ],
)
def test_usage(batch, rows, tmp_path, arguments, message):
    code, out, err = batch(rows, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


def test_missing_files(batch, tmp_path):
    for arguments, name in (
        ((tmp_path / "nothing.jsonl",), "nothing.jsonl"),
        ((tmp_path / "rows.jsonl", "--template", tmp_path / "nothing.jinja"), "nothing.jinja"),
        ((tmp_path / "rows.jsonl", "--template", "plain"), "plain"),
    ):
        code, _, err = batch(*arguments)
        assert code == 1
        assert f"{name}: No such file or directory" in err


def test_bad_rows_are_collected(batch, tmp_path):
    text = "word " * 300
    data = b'{"text": "a"}\nno JSON\n' + json.dumps({"text": text}).encode() + b'\n{"prompt": "b"}\n{"x": 1}\n'
    code, _, err = batch("-", "--max-tokens", 3, "--prometheus", tmp_path / "metrics.prom", stdin=data)
    assert code == 3
    errors = read(tmp_path / "out.errors.jsonl")
    assert [(error["file"], error["line"]) for error in errors] == [("standard input", line) for line in (2, 3, 5)]
    assert "this model's context is 200" in errors[1]["reason"]
    assert f"3 of 5 rows failed: {tmp_path / 'out.errors.jsonl'} has the reasons" in err
    assert "nbgpt_batch_failed 3.0" in (tmp_path / "metrics.prom").read_text()
    assert batch("-", "--max-tokens", 3, stdin=data)[0] == 3  # done, and it says so again


def test_csv_from_standard_input(batch, tmp_path):
    assert batch("-", "--format", "csv", "--max-tokens", 2, stdin=b"n,text\n1,a\n2,the\n")[0] == 0
    assert [line["n"] for line in read(tmp_path / "out.jsonl")] == ["1", "2"]


def test_killed_at_any_moment_and_started_again(tiny, tmp_path):
    """The output is that of a run that nobody disturbed, and what was finished is not done again."""
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in [*prompts(300), {"no": "text"}]))
    arguments = "batch", source, "-m", tiny, "--max-tokens", 40, "--shard-rows", 8, "--prompt", "{text}", "-o"
    undisturbed = start(*arguments, tmp_path / "whole.jsonl")
    assert undisturbed.wait() == 3, undisturbed.stderr.read()
    rng, n_killed, done = random.Random(0), 0, 0
    parts = tmp_path / "out.parts"
    while True:
        process = start(*arguments, tmp_path / "out.jsonl")
        aim = done + rng.randint(1, 15)  # shards after which it is killed
        while process.poll() is None and sum(1 for _ in parts.glob("*[0-9].jsonl")) < aim:
            time.sleep(0.001)
        time.sleep(rng.random() / 50)
        process.kill()
        if process.wait() != -signal.SIGKILL:
            assert process.returncode == 3, process.stderr.read()
            break
        n_killed += 1
        now = len(list(parts.glob("*[0-9].jsonl")))
        assert now >= done or (tmp_path / "out.jsonl").exists()
        done = max(done, now)
    assert n_killed
    resumed = int(re.search(r"301 rows, (\d+) of them before", process.stderr.read())[1])
    assert resumed >= 8 * done - 3 * (done == 38)  # more, if it was killed between two looks at the folder
    for ending in ("jsonl", "errors.jsonl"):
        assert (tmp_path / f"out.{ending}").read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()
    assert not parts.exists()


def test_a_full_disk(batch, rows, tmp_path, monkeypatch):
    """Wherever it comes, one line says so, and the next run goes on."""
    assert batch(rows, "--max-tokens", 4, "--shard-rows", 8)[0] == 0
    fsync = os.fsync
    for n_written in (0, 1, 4, 3, 2):
        left = [n_written]

        def full(file, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(file)

        monkeypatch.setattr(os, "fsync", full)
        code, _, err = batch(rows, "--max-tokens", 4, "--shard-rows", 8, name="full.jsonl")
        assert code == 1
        assert re.fullmatch(rf"nbgpt: {tmp_path}/full\S*: No space left on device\n", err)
        whole = tmp_path / "full.jsonl"
        assert not whole.exists() or whole.read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    monkeypatch.undo()
    assert batch(rows, "--max-tokens", 4, "--shard-rows", 8, name="full.jsonl")[0] == 0
    assert (tmp_path / "full.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


def test_interrupted(tiny, tmp_path, rows):
    process = start("batch", rows, "-m", tiny, "--max-tokens", 150, "--shard-rows", 4, "-o", tmp_path / "out.jsonl")
    while not list((tmp_path / "out.parts").glob("*[0-9].jsonl")) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    assert process.wait() in (0, 130)
    assert "Traceback" not in process.stderr.read()


def test_shards_as_processes(batch, rows, tmp_path):
    """What the pods of an indexed job do; joined, their outputs are the whole."""
    assert batch(rows, "--max-tokens", 4, "--shard-rows", 5)[0] == 0
    for part in range(3):
        assert batch(rows, "--max-tokens", 4, "--shard-rows", 5, "--shard", f"{part}/3", name="part.jsonl")[0] == 0
    parts = [tmp_path / f"part-0000{part}-of-00003.jsonl" for part in range(3)]
    assert b"".join(part.read_bytes() for part in parts) == (tmp_path / "out.jsonl").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes as Linux lists them")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tiny, tmp_path, rows, number):
    rows.write_text(rows.read_text() * 20)  # more than it can do before it is looked at
    options = "--max-tokens", 150, "--shard-rows", 4, "--workers", 2
    process = start("batch", rows, "-m", tiny, *options, "-o", tmp_path / "out.jsonl", stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("out.parts/*[0-9].jsonl")):
        assert process.poll() is None
        time.sleep(0.001)
    children = [
        Path(f"/proc/{child}") for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ]
    assert len(children) >= 2
    process.send_signal(number)
    process.wait()
    while any(map(is_running, children)):
        time.sleep(0.01)


def is_running(process):
    """Is a process of /proc more than an entry that nobody has read yet?"""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_several_processes(batch, rows, tmp_path):
    options = "--max-tokens", 4, "--shard-rows", 6
    assert batch(rows, *options)[0] == 0
    assert batch(rows, *options, "--workers", 2, "--cpus-per-worker", 1, name="two.jsonl")[0] == 0
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
