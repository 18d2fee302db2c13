"""The server of `explain --serve`: its answers, and whom it refuses."""

import http.client
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, browser
from packing import unpacked

from nbgpt.analysis.ablation import ablate
from nbgpt.analysis.explain import heads, page
from nbgpt.analysis.explain.live import Explainer, Handler, Server


@pytest.fixture(scope="module")
def port(explained, explained_model):
    html = page(explained, "live", live=True)
    explainer = Explainer(explained_model.engine, explained_model.tokenizer, explained)
    with Server(html, explainer) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving.server_port
        serving.shutdown()
        thread.join()


def ask(port, method, path, body=None, **headers):
    """-> status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_the_page(port):
    status, headers, body = ask(port, "GET", "/")
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert b"<title>What live does with a text</title>" in body
    assert ask(port, "GET", "/other")[0] == 404


def test_parts_off(port, explained, explained_model):
    off = [[0, 1], [1, 3]]
    status, _, body = ask(port, "POST", "/ablate", json.dumps({"off": off}))
    assert status == 200
    found = json.loads(body)
    expected = ablate(explained_model.engine, explained_model.tokenizer, explained, [tuple(part) for part in off])
    np.testing.assert_array_equal(unpacked(found["ids"]), expected.ids)
    np.testing.assert_allclose(unpacked(found["divergence"]), expected.divergence, rtol=2.5e-4, atol=1e-6)
    assert {int(i): text for i, text in found["texts"].items()} == expected.texts


def test_queries_and_keys(port, explained):
    found = json.loads(ask(port, "POST", "/products", json.dumps({"head": 5}))[2])
    assert found == heads.products(explained, [5])


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/ablate", "{", 400, ""),
        ("/ablate", '{"off": [[0, 4]]}', 400, "there is no part 4 in layer 0"),
        ("/ablate", '{"off": 3}', 400, ""),
        ("/ablate", "{}", 400, "off"),
        ("/products", '{"head": 6}', 400, "head is 6; it must be from 0 to 5"),
        ("/products", '{"head": "x"}', 400, "head is 'x'"),
        ("/products", "[]", 400, "expected a JSON object"),
        ("/ablate", '{"off": [[Infinity, 0]]}', 400, "infinity"),
        ("/ablate", '{"off": [[NaN, 0]]}', 400, "NaN"),
        ("/ablate", '{"off": ' + "[" * 100_000 + "]" * 100_000 + "}", 400, "nested more than 64 deep"),
        ("/nothing", "{}", 404, "nobody answers /nothing here"),
    ],
)
def test_bad_questions(port, path, body, status, said):
    found, _, answer = ask(port, "POST", path, body)
    assert found == status
    assert said in json.loads(answer)["error"]


@pytest.mark.parametrize("length", ["-1", "1048577", "9" * 5000, "x"])
def test_lengths_that_are_none(port, length):
    status, _, answer = ask(port, "POST", "/products", '{"head": 1}', **{"Content-Length": length})
    assert status == 400
    assert "this is no question" in json.loads(answer)["error"]


def test_memory_that_ends(port, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("nbgpt.analysis.explain.live.ablate", fail)
    status, _, answer = ask(port, "POST", "/ablate", '{"off": []}')
    assert status == 507
    assert "more memory than there is" in json.loads(answer)["error"]


@pytest.mark.parametrize(("own_port", "host", "is_own"), [(80, "localhost", True), (8080, "localhost", False)])
def test_browsers_do_not_name_port_80(own_port, host, is_own):
    handler = object.__new__(Handler)
    handler.server = SimpleNamespace(server_port=own_port)
    handler.headers = {"Host": host, "Origin": f"http://{host}"}
    assert handler._is_for_us() == is_own


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
def test_others_are_refused(port, headers):
    assert ask(port, "POST", "/products", '{"head": 1}', **headers)[0] == 403
    assert ask(port, "GET", "/", **headers)[0] == 403


def test_its_own_page_is_answered(port):
    for name in ("127.0.0.1", "localhost"):
        own = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}"}
        assert ask(port, "POST", "/products", '{"head": 1}', **own)[0] == 200


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with its chromedriver here")
def test_switches_are_live(port, explained, explained_model, tmp_path):
    """Two parts off in the browser, and another token: the page says what the model does without them."""
    with browser(tmp_path) as window:
        assert window.open(f"http://127.0.0.1:{port}/") == []
        window.wait("document.documentElement.dataset.ready === 'true'")
        for part in (1, 7):
            window.run(f"document.querySelectorAll('#switches button')[{part}].click()")
        window.run("document.querySelectorAll('#tokens button')[4].click()")
        expected = ablate(explained_model.engine, explained_model.tokenizer, explained, [(0, 1), (1, 3)])
        title = "document.getElementById('without-title').innerText"
        window.wait(f"{title}.startsWith('Without layer 0, head 1 and layer 1, MLP') && {title}.includes('(4): ')")
        bits = float(window.run(title).split("(4): ")[1].split()[0])
        assert abs(bits - expected.divergence[4]) < 0.002
        assert window.console() == []
