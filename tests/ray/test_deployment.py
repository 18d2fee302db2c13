import json
import socket
import sys
import urllib.request

import pytest

import nbgpt
from nbgpt.ray import Deployment


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ask(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_serves_as_the_server_does(cluster, model_file):
    pytest.importorskip("ray.serve", reason='Ray Serve is not installed: pip install "nbgpt[ray]"')
    from ray import serve

    port = free_port()
    serve.start(http_options={"port": port}, logging_config={"log_level": "ERROR"})
    try:
        serve.run(Deployment(str(model_file), chat_template="plain", ray_actor_options={"num_cpus": 1}))
        body = {"prompt": "the cat", "max_tokens": 6, "seed": 1}
        answer = ask(f"http://127.0.0.1:{port}/v1/completions", body)
        with nbgpt.load(model_file) as model:
            assert answer["choices"][0]["text"] == model.generate("the cat", max_tokens=6, seed=1).text
        chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
        assert ask(f"http://127.0.0.1:{port}/v1/chat/completions", chat)["choices"][0]["message"]["role"] == "assistant"
    finally:
        serve.shutdown()


def test_without_ray_serve(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "nbgpt\[ray,serve\]"'):
        Deployment()
