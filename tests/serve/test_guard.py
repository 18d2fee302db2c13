"""What a server refuses, and that it goes on afterwards: keys, hosts, origins, sizes, malformed and slow requests."""

import json
import signal
import socket
import time
from pathlib import Path

import pytest
from servers import STORY, serving

BODY = {"prompt": "It was", "max_tokens": 3, "seed": 1}
PATH = "/v1/completions"


@pytest.fixture(scope="module")
def impatient():
    """A server that waits one second for its clients, and has little room."""
    limits = ("--client-timeout", 1, "--max-batch", 1, "--max-queue", 2)
    with serving("--allow-host", "story.example", "--cors-origin", "https://a.example", *limits) as server:
        yield server


@pytest.fixture(autouse=True)
def alive_afterwards(request):
    """Whatever a test has done, its server answers."""
    yield
    for name in ("server", "impatient"):
        if name in request.fixturenames:
            one = request.getfixturevalue(name)
            one.wait_idle()
            assert len(one.complete(**BODY)["choices"]) == 1


def raw(server, *parts, pause=0.0):
    """Send bytes as they are -> all that comes back."""
    with server.connect() as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except (ConnectionResetError, BrokenPipeError):
            return b""


def head(server, length, extra=b""):
    lines = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"
    return lines % (PATH.encode(), length, extra)


def chunk(size):
    return b"%x\r\n%s\r\n" % (size, b"a" * size)


# --- Who may ask ------------------------------------------------------------------------------------------------------


def test_keys_are_asked_for_and_read_again(tmp_path):
    file = tmp_path / "keys"
    file.write_text("alpha\n\n  beta  \n")
    with serving("--api-key-file", file, env={"NBGPT_API_KEY": "gamma"}) as server:
        for key, status in {"alpha": 200, "beta": 200, "gamma": 200, "delta": 401, "": 401}.items():
            assert server.post(PATH, BODY, {"Authorization": f"Bearer {key}"}).status == status
        refused = server.post(PATH, BODY)
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert (refused.error["type"], refused.error["code"]) == ("authentication_error", "invalid_api_key")
        assert server.get("/metrics").status == server.get("/v1/models").status == 401
        assert [server.get(path).status for path in ("/health", "/ready", "/")] == [200, 200, 200]
        file.write_text("delta\n")
        server.process.send_signal(signal.SIGHUP)
        while not any("read again" in line for line in server.log):
            time.sleep(0.01)
        for key, status in {"delta": 200, "alpha": 401, "gamma": 200}.items():
            assert server.post(PATH, BODY, {"Authorization": f"Bearer {key}"}).status == status
        assert not [line for line in server.log for key in ("alpha", "beta", "gamma", "delta") if key in line]


def test_a_key_file_without_keys_is_refused(tmp_path):
    file = tmp_path / "keys"
    file.write_text("\n")
    with pytest.raises(AssertionError, match="has no API key; write one a line"), serving("--api-key-file", file):
        pass


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "[", "", "127.0.0.2"])
def test_another_name_is_refused(server, host):
    """A page whose name a hostile resolver points at loopback (DNS rebinding)."""
    refused = server.post(PATH, BODY, {"Host": host})
    assert (refused.status, refused.error["code"]) in ((403, "host_not_allowed"), (400, None))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:9", "LOCALHOST"])
def test_loopback_by_its_names(server, host):
    assert server.post(PATH, BODY, {"Host": host}).status == 200


def test_allowed_names_and_origins(impatient):
    assert impatient.post(PATH, BODY, {"Host": "story.example"}).status == 200
    allowed = impatient.post(PATH, BODY, {"Origin": "https://a.example"})
    assert (allowed.status, allowed.headers["Access-Control-Allow-Origin"]) == (200, "https://a.example")
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert impatient.ask("OPTIONS", PATH, headers=asked).status == 200
    assert impatient.post(PATH, BODY, {"Origin": "https://b.example"}).status == 403


def test_pages_of_other_sites_are_refused(server):
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        refused = server.post(PATH, BODY, {"Origin": origin})
        assert refused.status == 403
        assert "Access-Control-Allow-Origin" not in refused.headers
    assert server.post(PATH, BODY, {"Origin": server.url}).status == 200


# --- Bodies -----------------------------------------------------------------------------------------------------------

NO_JSON = {
    "nothing": b"",
    "half": b'{"prompt": "a',
    "deep": b'{"prompt": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "invalid UTF-8": b'{"prompt": "\xff\xfe"}',
    "a key twice": b'{"prompt": "a", "prompt": "b"}',
    "a list": b"[1, 2]",
    "a number": b"7",
    "NaN": b'{"prompt": "a", "temperature": NaN}',
    "infinite": b'{"prompt": "a", "temperature": 1e999}',
    "huge": b'{"prompt": "a", "max_tokens": ' + b"9" * 400 + b"}",
    "huge seed": b'{"prompt": "a", "seed": ' + b"9" * 30 + b"}",
    "twenty digits": b'{"prompt": [99999999999999999999]}',
    "negative id": b'{"prompt": [-1]}',
    "no id": b'{"prompt": []}',
    "an empty prompt among others": b'{"prompt": [[1], []]}',
    "text and ids": b'{"prompt": ["a", 1]}',
    "null": b'{"prompt": null}',
    "true": b'{"prompt": "a", "max_tokens": true}',
    "a text": b'{"prompt": "a", "temperature": "0.5"}',
    "misspelled": b'{"prompt": "a", "temprature": 1}',
}


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_request(server, body):
    refused = server.post(PATH, body)
    assert refused.status in (400, 422)
    assert 0 < len(refused.error["message"]) < 1000


def test_a_body_without_its_type(server):
    """A page of another site could send it without asking first."""
    refused = server.post(PATH, BODY, {"Content-Type": "text/plain"})
    assert (refused.status, "Content-Type: application/json" in refused.error["message"]) == (422, True)


def test_half_of_a_surrogate_pair_is_no_text(server):
    """JSON can write it, UTF-8 cannot: an answer could not echo it."""
    for prompt in (b'"\\ud800 it"', b'["it", "\\udfff"]'):
        refused = server.post(PATH, b'{"prompt": %s, "max_tokens": 2, "echo": true}' % prompt)
        assert (refused.status, "surrogate" in refused.error["message"]) == (400, True)


def test_large_bodies(server):
    """By their declared length, and without one."""
    large = json.dumps({"prompt": "a" * (50 << 20)}).encode()
    answer = raw(server, head(server, len(large)))
    assert answer.startswith(b"HTTP/1.1 413")
    begun = b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % PATH.encode()
    assert raw(server, begun, *[chunk(1 << 18)] * 4, chunk(1)).startswith(b"HTTP/1.1 413")  # its last byte is too much
    held = server.resident()
    for _ in range(10):
        raw(server, head(server, len(large)), large)
        raw(server, begun, *[chunk(1 << 18)] * 200)
    assert server.resident() < held + (32 << 20)
    fitting = {"prompt": "a b c d " * 100_000, "max_tokens": 1}
    refused = server.post(PATH, fitting)
    assert (refused.status, refused.error["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    "path", ["/v2", "/v1/completions/x", "/playground/../guard.py", "/playground/%2e%2e%2fguard.py"]
)
def test_what_is_not_there(server, path):
    refused = server.get(path)
    assert refused.status == 404
    assert refused.error["type"] == "invalid_request_error"


def test_another_method(server):
    refused = server.get(PATH)
    assert (refused.status, refused.headers["Allow"]) == (405, "POST")


def test_a_text_that_never_fits_says_by_how_much(files):
    with serving("--model", f"tiny={files['tiny']}", "--kv-memory", "50K") as small:
        refused = small.post(PATH, {"prompt": [1] * 500, "max_tokens": 500, "overflow": "truncate_left"})
        assert refused.status == 400
        assert "bytes of keys and values, kv_memory is" in refused.error["message"]


# --- Connections ------------------------------------------------------------------------------------------------------

MALFORMED = {
    "noise": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 50,
    "no version": b"GET /\r\n\r\n",
    "no length": b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "two lengths": head(None, 5, b"Content-Length: 6\r\n") + b"aaaaaa",
    "negative length": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "bad chunks": b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "spaces": b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a zero": b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "websocket": b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: close, Upgrade\r\n"
    b"Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "long head": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: a\r\n" * 100_000 + b"\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed_http(impatient, data):
    assert b" 500 " not in raw(impatient, data)[:20]


def test_slow_heads_and_bodies_are_given_up(impatient):
    assert raw(impatient, b"POST /v1/comp") == b""
    assert raw(impatient, *[b"POST ", b"/v1/", b"completions ", b"HTTP/1.1\r\n", b"A: b\r\n"], pause=0.4) == b""
    assert raw(impatient, head(impatient, 100), b"{").startswith(b"HTTP/1.1 408")


def test_a_half_closed_socket(impatient):
    """A client that has said all that it says, and reads: it may be gone, or not; nothing breaks."""
    with impatient.connect() as connection:
        data = json.dumps(BODY).encode()
        connection.sendall(head(impatient, len(data)) + data)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1 << 16)


def test_a_client_that_does_not_read_is_cut_off(impatient):
    """Its text would take minutes, and its pages come back."""
    body = {"prompt": "It was", "max_tokens": 100_000, "overflow": "truncate_left", "ignore_eos": True, "stream": True}
    data = json.dumps(body | {"logprobs": 20}).encode()
    with impatient.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(head(impatient, len(data)) + data)
        impatient.wait_until(lambda metrics: metrics["nbgpt_num_requests_running"] == 1)
        assert impatient.wait_idle()["nbgpt_request_failure_total"] >= 1


def test_many_connections(server):
    connections = [server.connect() for _ in range(300)]
    assert len(server.complete(**BODY)["choices"]) == 1
    for connection in connections:
        connection.close()
    held = server.resident()
    for _ in range(9_700):
        server.connect().close()
    server.wait_idle()
    assert server.resident() < held + (32 << 20)
    assert len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) < 300


# --- The queue, the log, the metrics ----------------------------------------------------------------------------------


def test_a_full_queue(impatient):
    refused = impatient.post(PATH, BODY | {"n": 4})
    assert (refused.status, refused.error["type"]) == (429, "rate_limit_error")
    assert int(refused.headers["Retry-After"]) >= 1
    long = json.dumps({"prompt": "a", "n": 3, "max_tokens": 100_000, "overflow": "truncate_left", "ignore_eos": True})
    with impatient.connect() as connection:
        connection.sendall(head(impatient, len(long)) + long.encode())
        impatient.wait_until(lambda metrics: metrics["nbgpt_num_requests_running"] == 1)
        assert impatient.get("/ready").status == 503
        assert impatient.get("/health").status == 200
        assert impatient.post(PATH, BODY).status == 429
    impatient.wait_idle()
    assert impatient.get("/ready").status == 200


def test_the_log_has_a_line_a_request_and_no_text():
    with serving("--log-json") as server:
        server.post(PATH, BODY | {"prompt": "Vladivostok", "stop": "Novosibirsk"})
        server.post(PATH, {"prompt": "Irkutsk", "temperature": -1})
        server.get("/nowhere")
        server.stop()
        lines = [json.loads(line) for line in server.log if line.startswith("{")]
    assert [(line["path"], line["status"]) for line in lines] == [(PATH, 200), (PATH, 400), ("/nowhere", 404)]
    assert (lines[0]["model"], lines[0]["texts"], lines[0]["completion_tokens"]) == (STORY, 1, 3)
    assert not [line for line in server.log for text in ("Vladi", "Novo", "Irkutsk") if text in line]


def test_metrics_count():
    with serving() as server:
        server.post(PATH, BODY | {"n": 2, "prompt": [5, 6, 7, 8]})
        server.post(PATH, BODY | {"prompt": "a", "stream": True})
        metrics = server.wait_idle()
    assert metrics["nbgpt_request_success_total length"] == 3
    assert metrics["nbgpt_generation_tokens_total"] == 9
    assert metrics["nbgpt_prompt_tokens_total"] == 4 + 4 + 2  # the embedded model begins texts with an id
    assert metrics["nbgpt_time_to_first_token_seconds_count"] == 3
    assert metrics["nbgpt_inter_token_latency_seconds_count"] == 6
    assert metrics["nbgpt_num_requests_running"] == metrics["nbgpt_num_requests_waiting"] == 0
    assert metrics[f"nbgpt_http_requests_total {PATH} 200"] == 2
