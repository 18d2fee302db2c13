"""The end of a server: signals, and a new one at once."""

import json
import signal
import threading

import pytest
from servers import events, serving

LONG = {"prompt": "It was", "max_tokens": 400, "ignore_eos": True, "seed": 1, "stream": True}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_texts_end(number, story):
    """With a connection that is kept alive and idle beside it."""
    with serving() as server, server.connect() as idle:
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        idle.recv(1 << 16)
        answers = []
        client = threading.Thread(target=lambda: answers.append(server.post("/v1/completions", LONG)))
        client.start()
        server.wait_until(lambda metrics: metrics["nbgpt_generation_tokens_total"] > 3)
        assert server.stop(number) == 0
        client.join()
    text = "".join(event["choices"][0]["text"] for event in events(answers[0].body))
    assert text == story.generate("It was", max_tokens=400, ignore_eos=True, seed=1).text


def test_a_second_signal_ends_it_at_once():
    endless = LONG | {"max_tokens": 1_000_000, "overflow": "truncate_left"}
    with serving() as server, server.connect() as client:
        data = json.dumps(endless).encode()
        head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        client.sendall(b"POST /v1/completions HTTP/1.1\r\n" + head.encode() + data)
        server.wait_until(lambda metrics: metrics["nbgpt_num_requests_running"] == 1)
        server.process.send_signal(signal.SIGTERM)
        while client.recv(1 << 16) and server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM


def test_texts_that_do_not_end_are_given_up():
    endless = LONG | {"max_tokens": 1_000_000, "overflow": "truncate_left", "stream": False}
    with serving("--drain-timeout", 1) as server:
        client = threading.Thread(target=lambda: server.post("/v1/completions", endless), daemon=True)
        client.start()
        server.wait_until(lambda metrics: metrics["nbgpt_num_requests_running"] == 1)
        assert server.stop() == 0


def test_a_killed_server_leaves_its_port():
    with serving() as first:
        first.process.kill()
        first.wait()
    with serving("--port", first.port) as second:
        assert second.port == first.port
        assert second.complete(max_tokens=3, seed=1)["usage"]["completion_tokens"] == 3
