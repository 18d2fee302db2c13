"""What goes wrong inside a server: the client is told, and the next request is served."""

import sys
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
