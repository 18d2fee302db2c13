"""The page that explains a text, as the playground's frame fetches it."""

import hashlib
import re
from base64 import b64encode

import pytest
from folders import write_random_model
from starlette.testclient import TestClient

import nbgpt
from nbgpt.analysis.explain import MAX_TOKENS
from nbgpt.serve import app
from nbgpt.serve.guard import Keys

KEY = "a key of this test"
WITH_KEY = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return nbgpt.load(
        write_random_model(tmp_path_factory.mktemp("model") / "random.safetensors", "int8", n_ctx=300), threads=1
    )


@pytest.fixture(scope="module")
def client(model):
    with TestClient(app(model, keys=Keys(also=[KEY]))) as client:
        yield client


def explain(client, prompt="It was a dark night", **fields):
    return client.post("/explain", json={"prompt": prompt, **fields}, headers=WITH_KEY)


def test_an_explained_text_is_fetched_once_and_its_policy_knows_its_script(client, model):
    address = explain(client).json()["page"]
    page = client.get(f"/{address}")  # without a key, as a frame asks
    assert page.status_code == 200
    assert model.name in page.text
    directives = (one.split() for one in page.headers["Content-Security-Policy"].split(";"))
    policy = {name: values for name, *values in directives}
    assert policy["default-src"] == ["'none'"]
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        digest = b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == [f"'sha256-{digest}'"]
    assert policy["frame-ancestors"] == ["'self'"]
    assert policy["sandbox"] == ["allow-scripts"]
    assert page.headers["Cache-Control"] == "no-store"
    assert client.get(f"/{address}").status_code == 404


def test_ids_are_explained_as_the_text(client, model):
    text = "It was"
    pages = [client.get("/" + explain(client, prompt).json()["page"]).text for prompt in (text, model.encode(text))]
    assert pages[0] == pages[1]


def test_only_some_pages_wait_for_their_frames(client):
    addresses = [explain(client).json()["page"] for _ in range(5)]
    assert len(set(addresses)) == 5
    assert [client.get(f"/{address}").status_code for address in addresses] == [404, 200, 200, 200, 200]


def test_explaining_needs_a_key(client):
    assert client.post("/explain", json={"prompt": "It"}).status_code == 401


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"prompt": [1] * (MAX_TOKENS + 1)}, 400, f"at most {MAX_TOKENS}: shorten it"),
        ({"prompt": [10**9]}, 400, str(10**9)),
        ({"prompt": []}, 400, "[]"),
        ({"prompt": "It", "model": "none"}, 404, "there is no model 'none'"),
        ({"prompt": 3}, 422, "prompt"),
        ({"prompt": "It", "other": 1}, 422, "other"),
    ],
)
def test_what_cannot_be_explained(client, fields, status, message):
    answer = explain(client, **fields)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
