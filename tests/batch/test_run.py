import io
import json
import os
import random
import subprocess
import sys

import pytest
from batch_rows import prompts, read

from nbgpt.batch import worker
from nbgpt.batch.job import Job
from nbgpt.batch.run import Files, InProcess, run
from nbgpt.formats import FormatError

JOB = Job(prompt="{text}", options={"max_tokens": 6})


@pytest.fixture
def answer(model, tmp_path):
    """Runs a job on a file -> the summary, the output."""

    def answer(source, job=JOB, name="out.jsonl", size=8, **changes):
        limits = {key: changes.pop(key) for key in ("max_errors",) if key in changes}
        files = Files(source=str(source), output=tmp_path / name, **{"shard_rows": 8, **changes})
        return run(files, job, InProcess(model, size), **limits)

    return answer


def by_row(path):
    """The answers of each row, in their order."""
    found = {}
    for line in read(path):
        answer = line.pop("answer")
        found.setdefault(json.dumps(line), []).append(answer)
    return found


def test_answers_do_not_depend_on_order_batch_or_shards(answer, write):
    rows = prompts(60)
    summary, output = answer(write(rows))
    assert [{name: line[name] for name in ("n", "text")} for line in read(output.path)] == rows
    assert (summary.rows, summary.answered, summary.failed, summary.new_tokens) == (60, 60, 0, 360)
    expected = by_row(output.path)
    assert max(map(len, expected.values())) > 1  # some rows are equal, and their answers differ
    assert len({one["text"] for one in max(expected.values(), key=len)}) > 1
    random.Random(0).shuffle(rows)
    _, other = answer(write(rows, "shuffled.jsonl"), name="other.jsonl", size=3, shard_rows=17)
    assert by_row(other.path) == expected


def test_parts_are_the_whole(answer, write):
    rows = write(prompts(60))
    _, whole = answer(rows)
    parts = [answer(rows, name="split.jsonl", part=part, n_parts=3)[1].path for part in range(3)]
    assert [path.name for path in parts] == [f"split-0000{part}-of-00003.jsonl" for part in range(3)]
    assert b"".join(path.read_bytes() for path in parts) == whole.path.read_bytes()
    others = [answer(rows, name="others.jsonl", part=part, n_parts=3, shard_rows=7 + part)[1].path for part in range(3)]
    assert [path.read_bytes() for path in others] == [path.read_bytes() for path in parts]
    empty = answer(write(prompts(2), "few.jsonl"), name="few.jsonl.jsonl", part=0, n_parts=3)[1]
    assert empty.path.read_bytes() == b""


def test_rows_with_ids_keep_their_answers_when_others_come(answer, write):
    rows = [{"id": f"x{n}", "text": "the cat"} for n in range(12)]
    job = Job(prompt="{text}", id="id", options={"max_tokens": 6})
    _, output = answer(write(rows), job)
    _, fewer = answer(write(rows[::-2], "fewer.jsonl"), job, name="fewer-out.jsonl")
    assert read(fewer.path) == read(output.path)[::-2]
    assert len({line["answer"]["text"] for line in read(output.path)}) > 1


def test_formats_give_the_same_answers(answer, write, tmp_path):
    rows = [{"n": str(row["n"]), "text": row["text"]} for row in prompts(20)]
    _, output = answer(write(rows))
    (tmp_path / "rows.csv").write_text("n,text\n" + "".join(f"{row['n']},{row['text']}\n" for row in rows))
    _, other = answer(tmp_path / "rows.csv", name="other.jsonl")
    assert other.path.read_bytes() == output.path.read_bytes()


def test_standard_input_is_kept_and_can_be_given_again(answer, write, monkeypatch, tmp_path):
    path = write([*prompts(20), "no JSON"])
    _, output = answer(path)

    def give(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    give(path.read_bytes())
    with pytest.raises(FormatError, match="more than --max-errors 0; one of them: standard input, line 21"):
        answer("-", name="other.jsonl", max_errors=0)
    give(path.read_bytes())
    summary, other = answer("-", name="other.jsonl")
    assert summary.resumed == 21
    assert other.path.read_bytes() == output.path.read_bytes()
    give(b'{"text": "another"}\n')
    with pytest.raises(ValueError, match=r"was begun with input\.rows 21, and now it is 1"):
        answer("-", name="other.jsonl")


def test_too_many_errors_end_the_run_and_it_goes_on_with_more_patience(answer, write):
    rows = write([*prompts(20), "no JSON", *prompts(3), "no JSON"])
    with pytest.raises(FormatError, match=r"^1 rows could not be answered, more than --max-errors 0; one of them: "):
        answer(rows, max_errors=0)
    summary, output = answer(rows, max_errors=2)
    assert (summary.failed, summary.resumed + summary.answered) == (2, 25)
    assert summary.resumed
    assert [error["line"] for error in read(output.errors_path)] == [21, 25]
    again, _ = answer(rows)
    assert (again.answered, again.failed) == (0, 2)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (Job(prompt="{txet}"), "line 1: there is no column 'txet': there are 'n', 'text'"),
        (Job(id="key"), "line 1: there is no column 'key': there are 'n', 'text'"),
        (Job(answer="n"), "line 1: it has a column 'n', in which its answer would come"),
        (Job(chat_template="plain"), "--chat-template is given, and the input is not in OpenAI's batch format"),
        (Job(id="n"), "line 1 and .*line 5 have the same n, '0'"),
        (Job(options={"top_k": -1}), "top_k is -1"),
    ],
)
def test_a_job_that_does_not_fit_is_refused_at_once(answer, write, tmp_path, job, message):
    with pytest.raises(ValueError, match=message):
        answer(write(prompts(20)), job)
    assert not (tmp_path / "out.jsonl").exists()


def test_openais_format_is_found_out(answer, write):
    row = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"input": "the cat"}}
    pytest.importorskip("fastapi", reason="OpenAI's format needs the extra serve")
    _, output = answer(write([row]), Job())
    (line,) = read(output.path)
    assert line["response"]["body"]["object"] == "list"
    with pytest.raises(ValueError, match="in which each row says what is asked of it"):
        answer(write([row]), JOB)


def test_the_output_must_be_apart_from_the_input(answer, write, tmp_path):
    rows = write(prompts(3))
    with pytest.raises(ValueError, match=r"the input .*rows\.jsonl belongs to --output"):
        answer(rows, name="rows.jsonl")
    with pytest.raises(ValueError, match="is in the folder of the input"):
        answer(tmp_path)


@pytest.mark.parametrize("name", ["a.errors.jsonl", "a.manifest.json", "a.parts", "a.parts/00000000.jsonl"])
def test_files_of_the_output_are_no_input(answer, write, tmp_path, name):
    (tmp_path / "a.parts").mkdir()
    rows = write(prompts(3), "a.parts/00000000.jsonl")
    write(prompts(3), "a.errors.jsonl")
    if name.endswith("json"):
        (tmp_path / name).write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json*")}
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"belongs to --output .*a\.jsonl; choose another name"):
            answer(tmp_path / name, name="a.jsonl", form="jsonl", overwrite=overwrite)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json*")} == before
    assert rows in before


def test_standard_input_that_is_refused_leaves_nothing(answer, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"x": 1}\n')))
    with pytest.raises(ValueError, match="there is no column 'text'"):
        answer("-")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="standard input is closed"):
        answer("-")
    assert not list(tmp_path.iterdir())


def test_an_input_that_changes_under_the_run(answer, write, tmp_path, monkeypatch):
    rows = write(prompts(20))

    rows_of = worker.rows_of
    monkeypatch.setattr(worker, "rows_of", lambda table, shard: os.utime(rows, ns=(1, 1)) or rows_of(table, shard))
    with pytest.raises(FormatError, match=r"rows\.jsonl: the input has changed under the run"):
        answer(rows)
    assert not list(tmp_path.rglob("0*.jsonl"))


def test_errors_of_an_earlier_run_count_before_the_next_begins(answer, write):
    rows = write(["no JSON"] * 8 + prompts(20))
    with pytest.raises(FormatError, match="8 rows could not"):
        answer(rows, max_errors=3)
    with pytest.raises(FormatError, match=r"^8 rows could not be answered, more than --max-errors 3; .*out.parts has"):
        answer(rows, max_errors=3)


def test_overwrite(answer, write):
    rows = write(prompts(9))
    _, output = answer(rows)
    before = output.path.read_bytes()
    with pytest.raises(ValueError, match=r"job\.seed 0, and now it is 1"):
        answer(rows, Job(prompt="{text}", seed=1, options={"max_tokens": 6}))
    answer(rows, Job(prompt="{text}", seed=1, options={"max_tokens": 6}), overwrite=True)
    assert output.path.read_bytes() != before


MEMORY = """
import json, resource, sys
from pathlib import Path
from nbgpt.batch.job import Answer, Job
from nbgpt.batch.run import Files, run
from nbgpt.batch.worker import Worker

class Fake:
    model = {}

    def check(self, job):
        pass

    def answers(self, questions):
        for question in questions:
            yield Answer(question.row, {"text": question.prompt, "seed": question.seed})

    def run(self, job, table, shards, progress):
        return Worker(self, job, table).run(shards, progress.note)

peaks, folder = [], Path(sys.argv[1])
for n in (5_000, 50_000):
    rows = folder / f"{n}.jsonl"
    with rows.open("w") as file:
        for i in range(n):
            file.write(json.dumps({"id": i, "text": f"a short row with the number {i}"}) + "\\n")
    run(Files(source=str(rows), output=folder / f"{n}.out.jsonl"), Job(id=sys.argv[2] or None), Fake())
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(*peaks)
"""


@pytest.mark.parametrize("id_column", ["", "id"])
def test_memory_is_flat(tmp_path, id_column):
    """Rows are read, seeded, cut into shards and joined without being kept: at most 80 bytes a row stay."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MEMORY, str(tmp_path), id_column]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    few, many = map(int, done.stdout.split())
    assert (many - few) * 1024 < 80 * 45_000 + (2 << 20)
    assert (tmp_path / "50000.out.jsonl").read_bytes().count(b"\n") == 50_000
