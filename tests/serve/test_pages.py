"""The pages of a server without a browser: who may fetch them, and what their policies allow."""

import re

import pytest
from starlette.testclient import TestClient

import nbgpt
from nbgpt.serve import app
from nbgpt.serve.guard import Keys
from nbgpt.serve.pages import PREFIX


@pytest.fixture(scope="module")
def client():
    with TestClient(app(nbgpt.load(), keys=Keys(also=["a key of this test"]))) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_needs_no_key_and_loads_only_what_is_beside_it(client, path):
    page = client.get(path)
    assert page.status_code == 200
    directives = (one.split() for one in page.headers["Content-Security-Policy"].split(";"))
    policy = {name: values for name, *values in directives}
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", page.text)
    names = [name for name in re.findall(r'(?:src|href)="([^"#:]+)"', page.text) if name.startswith(PREFIX[1:])]
    assert len(names) == 3  # icon, style, script
    for name in names:
        part = client.get(f"/{name}")
        assert part.status_code == 200
        assert part.headers["X-Content-Type-Options"] == "nosniff"
        if name.endswith(".js"):
            assert part.headers["Content-Type"].startswith("text/javascript")
            for imported in re.findall(r'from "\./([\w.]+)"', part.text):
                assert client.get(PREFIX + imported).status_code == 200


@pytest.mark.parametrize("name", ["pages.py", "..%2Fpages.py", "%2e%2e%2fpages.py", "explain/x/y", "x" * 5000])
def test_nothing_else_lies_there(client, name):
    answer = client.get(PREFIX + name)
    assert answer.status_code == 404
    assert len(answer.text) < 500
