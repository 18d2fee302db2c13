"""What goes wrong inside a server: the client is told, and the next request is served."""

import json
import sys
import threading
import time

import pytest
from starlette.testclient import TestClient

import nbgpt
from nbgpt.engine.engine import Engine
from nbgpt.serve import app
from nbgpt.serve.limits import Limits

BODY = {"prompt": "It was", "max_tokens": 3, "seed": 1}
PATH = "/v1/completions"


@pytest.fixture(scope="module")
def client(story):
    with TestClient(app(story, limits=Limits(grammar_seconds=0.2)), base_url="http://localhost") as client:
        yield client


@pytest.fixture(autouse=True)
def serves_afterwards(request):
    yield
    if "client" in request.fixturenames:
        assert request.getfixturevalue("client").post(PATH, json=BODY).status_code == 200


def error(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def test_without_llguidance(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    told = error(client.post(PATH, json=BODY | {"guided_regex": "[a-z]+"}), 400)
    assert 'pip install "nbgpt[constrain]"' in told["message"]


def test_a_grammar_that_takes_too_long(client, monkeypatch):
    from nbgpt.serve import generation

    def slow(*arguments):
        time.sleep(1)
        return generation_parse(*arguments)

    generation_parse = generation.parse
    with monkeypatch.context() as patch:
        patch.setattr(generation, "parse", slow)
        told = error(client.post(PATH, json=BODY | {"guided_choice": ["a", "b"]}), 400)
    assert told["message"] == "the grammar took more than 0.2 s to compile"


@pytest.mark.parametrize("raised", [MemoryError(), MemoryError("no page is left")])
def test_out_of_memory(client, monkeypatch, raised):
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "advance", lambda *_: (_ for _ in ()).throw(raised))
        told = error(client.post(PATH, json=BODY), 503)
    assert (told["type"], told["message"]) == ("server_error", str(raised) or "out of memory")


@pytest.fixture
def narrow(files):
    """A server whose texts grow one at a time."""
    with TestClient(app(nbgpt.load(files["tiny"]), limits=Limits(max_batch=1)), base_url="http://localhost") as client:
        yield client


@pytest.fixture
def expire(narrow, monkeypatch):
    """Let the time of all requests end before or after each pass."""

    def expire(when):
        advance, texts_of = Engine.advance, narrow.app.state.server.worker._open

        def advance_late(engine, *arguments):
            for step in (advance, end_time) if when == "after" else (end_time, advance):
                step(engine, *arguments)

        def end_time(engine, *_):
            for text in texts_of[engine]:
                text.group.expire()

        monkeypatch.setattr(Engine, "advance", advance_late)

    return expire


def test_the_time_ends_before_a_text_has_begun(narrow, expire):
    expire("before")
    answer = narrow.post(PATH, json=BODY)
    assert "wait too long for a place" in error(answer, 503)["message"]
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_time_ends_in_the_first_pass_of_a_text(narrow, expire, is_streamed):
    """It had a place: what is there is the answer, and a text of this request that had none is empty."""
    expire("after")
    answer = narrow.post(PATH, json=BODY | {"n": 2, "max_tokens": 50, "ignore_eos": True, "stream": is_streamed})
    assert answer.status_code == 200, answer.text
    if is_streamed:
        events = [json.loads(event[len("data: ") :]) for event in answer.text.split("\n\n")[:-2]]
    else:
        events = [answer.json()]
        assert events[0]["usage"]["completion_tokens"] == 1
    choices = [choice for event in events for choice in event["choices"]]
    assert {choice["index"]: choice["finish_reason"] for choice in choices} == {0: "time", 1: "time"}
    assert "".join(choice["text"] for choice in choices if choice["index"] == 1) == ""


def test_a_server_that_stops_says_so_to_texts_that_wait(narrow, monkeypatch):
    advance, worker = Engine.advance, narrow.app.state.server.worker

    def advance_late(engine, requests, update):
        threading.Thread(target=worker.stop).start()
        while not all(request.is_cancelled for request in requests):
            time.sleep(0.01)
        advance(engine, requests, update)

    monkeypatch.setattr(Engine, "advance", advance_late)
    assert error(narrow.post(PATH, json=BODY), 503)["message"] == "the server is stopping"


def test_a_fault_of_ours_says_nothing_of_the_inside(client, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "advance", lambda *_: 1 // 0)
        told = error(client.post(PATH, json=BODY), 500)
    assert told["message"] == "the server has failed; its log says how"
    assert "ZeroDivisionError" in caplog.text


def test_a_model_that_was_closed(files):
    model = nbgpt.load(files["tiny"])
    with TestClient(app(model), base_url="http://localhost") as client:
        model.close()
        assert error(client.post(PATH, json=BODY), 503)["type"] == "server_error"
        assert client.get("/ready").status_code == 503
