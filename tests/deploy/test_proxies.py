"""The server behind nginx and Caddy, set up as docs/serving.md says: the same texts, and no stream is held back."""

import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers import PATIENCE, choices_of, gauges, serving

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
NAME = "example.test"
ASKED = {"prompt": "Once upon a time", "seed": 1, "max_tokens": 800, "ignore_eos": True}


@pytest.fixture(scope="module")
def server():
    with serving("--allow-host", NAME) as server:
        yield server


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def nginx(folder, port, server):
    """Its command, with the documented location in a configuration that needs no rights."""
    (location,) = re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL)
    paths = " ".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    location = location.replace("http://127.0.0.1:8000", server.url)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}}\n"
        f"http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port}; {location} }} }}\n"
    )
    return ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "errors")]


def caddy(folder, port, server):
    """Its command, with the documented directive and without certificates."""
    assert "`reverse_proxy 127.0.0.1:8000`" in PAGE
    directive = f"reverse_proxy {server.url.removeprefix('http://')}"
    file = folder / "Caddyfile"
    file.write_text(f"{{\n admin off\n}}\nhttp://{NAME}:{port} {{\n bind 127.0.0.1\n {directive}\n}}\n")
    return ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"]


def version(name):
    said = subprocess.run([name, "-v"], capture_output=True, text=True, check=False).stderr
    return tuple(map(int, re.search(r"([\d.]+)", said)[1].split(".")))


IS_OLD = shutil.which("nginx") and version("nginx") < (1, 19, 5)
PROXIES = [
    pytest.param(
        nginx,
        marks=pytest.mark.skipif(not shutil.which("nginx") or IS_OLD, reason="no nginx is there, or one before 1.19.5"),
    ),
    pytest.param(caddy, marks=pytest.mark.skipif(not shutil.which("caddy"), reason="Caddy is not there")),
]


@contextmanager
def running(command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
                break
            except OSError:
                assert process.poll() is None, "the proxy has ended"
                threading.Event().wait(0.1)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_stream_passes_as_it_is_made(proxy, server, tmp_path):
    port = free_port()
    whole = server.post("/v1/completions", ASKED).body
    with running(proxy(tmp_path, port, server), port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        headers = {"Content-Type": "application/json", "Host": NAME}
        connection.request("POST", "/v1/completions", json.dumps({**ASKED, "stream": True}), headers)
        response = connection.getresponse()
        assert response.status == 200
        first = response.readline()
        assert gauges(server.metrics()) == (1, 0)  # the text is not at its end, and some of it is here
        assert choices_of(first + response.read())[0]["text"] == choices_of(whole)[0]["text"]
        connection.request("GET", "/", headers={"Host": NAME})
        response = connection.getresponse()
        assert response.status == 200
        assert response.getheader("Content-Security-Policy")
