import json
import sys

import pytest
from batch_rows import read

from nbgpt.batch.index import build
from nbgpt.batch.job import OPENAI, Job
from nbgpt.batch.openai import OpenAI
from nbgpt.batch.table import Table
from nbgpt.batch.worker import Worker

pytest.importorskip("fastapi", reason="OpenAI's format needs the extra serve")
from starlette.testclient import TestClient

from nbgpt.serve.application import app
from nbgpt.tasks.chat_template import PLAIN, ChatTemplate


def request(name, body, url="/v1/completions", **changes):
    return {"custom_id": name, "method": "POST", "url": url, "body": body, **changes}


GOOD = [
    request("a", {"prompt": "the cat", "max_tokens": 7}),
    request("b", {"prompt": ["a dog", "night"], "max_tokens": 5, "n": 2, "seed": 3, "logprobs": 2}),
    request("c", {"input": ["the hill", "a"]}, "/v1/embeddings"),
    request("d", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}, "/v1/chat/completions"),
]
BAD = [
    (request("e", {"prompt": "a", "max_tokens": 0}), 400),
    (request("f", {"prompt": "a", "tokens": 5}), 422),
    (request("g", {"prompt": "a", "model": "gpt-4"}), 404),
    (request("h", {"prompt": "word " * 300, "max_tokens": 5}), 400),
    (request("i", {"prompt": "a", "stream": True}), 400),
    (request("j", {"input": "a"}, "/v1/moderations"), 400),
    (request("k", {"prompt": "a"}, method="GET"), 400),
    (request("l", "body"), 400),
    (request("m", {"prompt": "a", "max_time": 5}), 400),
]


@pytest.fixture
def answered(model, write, tmp_path):
    """Answers rows -> objects of the output, of the errors file."""

    def answered(rows, size=4, seed=0, chat_template="plain"):
        table, job = Table([write(rows)]), Job(OPENAI, id="custom_id", seed=seed)
        index = build(table, 64, lambda row: job.id)
        (finished,) = Worker(OpenAI(model, chat_template, size), job, table).run([index.shard(0)])
        for name, data in (("out", finished.lines), ("errors", finished.errors)):
            (tmp_path / name).write_bytes(data)
        return read(tmp_path / "out"), read(tmp_path / "errors")

    return answered


def test_bodies_are_those_of_the_server(model, answered):
    """But for ids and times."""
    lines, errors = answered(GOOD)
    assert errors == []
    with TestClient(app(model, chat_template=PLAIN)) as client:
        for row, line in zip(GOOD, lines, strict=True):
            assert (line["custom_id"], line["error"]) == (row["custom_id"], None)
            assert line["response"]["status_code"] == 200
            body = line["response"]["body"]
            seeds = {"seed": body["choices"][0]["seed"]} if "choices" in body else {}
            expected = client.post(row["url"], json={**row["body"], **seeds}).json()
            for name in ("id", "created"):
                expected.pop(name, None)
                body.pop(name, None)
            assert body == expected


def test_a_row_has_one_answer_whatever_stands_around_it(answered):
    lines, _ = answered(GOOD)
    others = answered([request(str(n), {"prompt": "a " * n, "max_tokens": 3}) for n in range(1, 9)] + GOOD[::-1], 2)[0]
    assert others[8:] == lines[::-1]
    assert answered(GOOD, seed=1)[0][0] != lines[0]
    assert lines[0]["response"]["body"]["created"] == 0


def test_refused_requests_are_answered_in_the_errors_file(answered):
    lines, errors = answered([GOOD[0], *(row for row, _ in BAD)])
    assert [line["custom_id"] for line in lines] == ["a"]
    assert [error["custom_id"] for error in errors] == [row["custom_id"] for row, _ in BAD]
    assert [error["response"]["status_code"] for error in errors] == [status for _, status in BAD]
    for error in errors:
        assert error["response"]["body"]["error"]["message"]
        assert error["error"] is None


def test_lines_that_are_no_requests(answered):
    lines, errors = answered([GOOD[0], "no JSON", {"custom_id": "x"}, {**GOOD[1], "custom_id": None}])
    assert len(lines) == 1
    assert [error["custom_id"] for error in errors] == [None, "x", None]
    assert all(error["response"] is None for error in errors)
    assert "line 2: not valid JSON" in errors[0]["error"]["message"]


def test_chat_without_a_template(answered):
    _, errors = answered(GOOD[3:], chat_template=None)
    assert errors[0]["response"]["body"]["error"]["code"] == "no_chat_template"


@pytest.mark.parametrize("form", [{"guided_choice": ["a", "b"]}, {"response_format": {"type": "json_object"}}])
def test_without_llguidance(answered, monkeypatch, form):
    """The run ends: with the package the row would have an answer."""
    monkeypatch.setattr("nbgpt.batch.openai.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'line 2 needs the package llguidance: pip install "nbgpt\[constrain\]"'):
        answered([GOOD[0], request("b", {"prompt": "a", "max_tokens": 3, **form})])


@pytest.mark.parametrize("faults", [1, 2])
def test_a_fault_of_the_server_is_one_of_the_row_if_it_comes_again(answered, monkeypatch, faults):
    left, chat = [faults], ChatTemplate(lambda messages: fail(left) or "the cat")
    monkeypatch.setattr("nbgpt.batch.openai._template", lambda name: chat)
    lines, errors = answered([GOOD[0], GOOD[3]])
    assert [line["custom_id"] for line in lines] == ["a", "d"][: 3 - faults]
    assert [error["custom_id"] for error in errors] == ["d"][2 - faults :]
    assert all(error["response"]["status_code"] == 500 for error in errors)


def fail(left):
    left[0] -= 1
    if left[0] >= 0:
        raise RuntimeError("no answer")


def test_without_fastapi(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbgpt.serve.application", None)
    with pytest.raises(ImportError, match=r'pip install "nbgpt\[serve\]"'):
        OpenAI(model, None, 4)


def test_rows_are_written_as_json_lines(answered, tmp_path):
    answered(GOOD)
    assert all(json.loads(line)["id"].startswith("batch_req_") for line in (tmp_path / "out").open())
