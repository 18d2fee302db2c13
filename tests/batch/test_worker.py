import json
import random
from dataclasses import replace

import numpy as np
import pytest

import nbgpt
from nbgpt.batch.index import build
from nbgpt.batch.job import Answer, Job
from nbgpt.batch.table import Table
from nbgpt.batch.worker import Worker, answers_of, identity_of
from nbgpt.weights import ClassifierHead

JOB = Job(prompt="{text}")


@pytest.mark.parametrize(
    "changes",
    [{"intercept": np.ones(2)}, {"coefficients": np.zeros((2, 8))}, {"layer": 0}, {"labels": ("a", "c")}, None],
)
def test_identity_is_that_of_the_head_too(model, changes):
    head = ClassifierHead(("a", "b"), False, 1, "last", np.zeros(8), np.ones(8), np.eye(2, 8), np.zeros(2))
    other = head if changes is None else replace(head, **changes)
    one, two, none = (identity_of(replace(model.weights, head=head), "float32") for head in (head, other, None))
    assert (one == two) == (changes is None)
    assert none != one
    assert identity_of(replace(model.weights, bos=not model.weights.bos), "float32") != none


def test_a_kv_cache_of_less_than_a_context_is_refused_at_once(model, model_file):
    with nbgpt.load(model_file, kv_memory=150 * model.engine.cache.position_bytes) as model:
        for job in (Job(), Job("score"), Job("embed")):
            with pytest.raises(ValueError, match=r"a whole context of 200 tokens takes \d+ bytes .* is \d+: give"):
                answers_of(model, job, 4)


class Shuffled:
    """Answers with the prompt and the seed, many at a time and in no order."""

    def __init__(self, n_places, bad=()):
        self.n_places, self.bad, self.asked = n_places, bad, []
        self._rng = random.Random(0)

    def answers(self, questions):
        open_ = []
        while True:
            while len(open_) < self.n_places and (question := next(questions, None)):
                open_.append(question)
                self.asked.append(question)
            if not open_:
                return
            one = open_.pop(self._rng.randrange(len(open_)))
            fields = {"text": one.prompt, "seed": one.seed}
            yield Answer(one.row, fields, "bad" * (one.row.columns.get("n") in self.bad), 1, 2)


@pytest.fixture
def work(write):
    """Works on rows -> the finished shards by number, and what was asked in order."""

    def work(rows, answers, job=JOB, shard_rows=4):
        table = Table([write(rows)])
        index = build(table, shard_rows, lambda row: job.id)
        shards = map(index.shard, range(len(index.positions)))
        return {one.number: one for one in Worker(answers, job, table).run(shards)}

    return work


def test_answers_stand_in_the_order_of_the_rows(work):
    rows = [{"n": n, "text": "x" * (n % 7)} for n in range(30)]
    shards = work(rows, Shuffled(5))
    lines = [json.loads(line) for number in sorted(shards) for line in shards[number].lines.splitlines()]
    assert [{name: line[name] for name in ("n", "text")} for line in lines] == rows
    assert [line["answer"]["text"] for line in lines] == [row["text"] for row in rows]
    assert sum(one.new_tokens for one in shards.values()) == 60
    assert not any(one.errors for one in shards.values())


def test_long_rows_of_a_shard_come_first_and_the_next_shard_fills_the_places(work):
    rows = [{"n": n, "text": "x" * (5 * n % 8)} for n in range(16)]
    answers = Shuffled(3)
    work(rows, answers, shard_rows=8)
    sizes = [question.size for question in answers.asked]
    assert sizes == sorted(sizes[:8], reverse=True) + sorted(sizes[8:], reverse=True)
    assert len({question.row.number < 8 for question in answers.asked[:8]}) == 1


def test_bad_rows_are_errors_with_their_lines(work):
    rows = [{"n": 0, "text": "a"}, "no JSON", {"n": 2}, {"n": 3, "text": "d"}, "", {"n": 5, "text": "f"}]
    shards = work(rows, Shuffled(2, bad={3}), Job(prompt="{text}", id="n"), shard_rows=2)
    errors = [json.loads(line) for number in sorted(shards) for line in shards[number].errors.splitlines()]
    assert [(error["line"], error.get("id")) for error in errors] == [(2, None), (3, "2"), (4, "3")]
    assert "not valid JSON" in errors[0]["reason"]
    assert errors[1]["reason"] == "there is no column 'text': there are 'n'"
    assert sum(one.n_failed for one in shards.values()) == 3
    assert shards[1].first_error.endswith("line 3: there is no column 'text': there are 'n'")
    assert [len(shards[number].lines.splitlines()) for number in (0, 1, 2)] == [1, 0, 1]


def test_a_shard_of_bad_rows_alone_is_finished_too(work):
    shards = work([{"text": "a"}, "x", "y", "z", {"text": "b"}], Shuffled(3), shard_rows=1)
    assert sorted(shards) == [0, 1, 2, 3, 4]


def test_a_shard_without_a_good_row_is_finished_before_an_answer_comes_behind_it(write):
    table = Table([write(["x", "y", "z", {"text": "b"}])])
    index, begun = build(table, 1, lambda row: None), []
    shards = (begun.append(number) or index.shard(number) for number in range(4))
    finished = Worker(Shuffled(3), JOB, table).run(shards)
    assert [(next(finished).number, list(begun)) for _ in range(3)] == [(0, [0]), (1, [0, 1]), (2, [0, 1, 2])]
    assert [one.number for one in finished] == [3]


def test_equal_rows_have_seeds_of_their_own_in_whichever_shard(work):
    shards = work([{"text": "a"}] * 9, Shuffled(2), shard_rows=2)
    seeds = [json.loads(line)["answer"]["seed"] for one in shards.values() for line in one.lines.splitlines()]
    assert len(set(seeds)) == 9
