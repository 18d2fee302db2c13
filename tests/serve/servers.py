"""`python -m nbgpt serve` as a process of its own, and plain ways to ask it."""

import http.client
import json
import re
import signal
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import openai
from command_line import start
from prometheus_client.parser import text_string_to_metric_families

STORY = "story-34m"
"""The embedded model."""
PATIENCE = 120
"""Seconds until a server that has not answered is taken for dead: compiling kernels is the longest wait."""


@dataclass
class Answer:
    """An HTTP response that has been read."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """What an answer that reports an error says, in OpenAI's form."""
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


class Server:
    """A running server: its process, its address, and the lines that it has logged."""

    def __init__(self, process):
        self.process, self.log = process, []
        self._is_listening = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._is_listening.wait(PATIENCE), "the server does not come up"
        assert self.url, "\n".join(self.log)
        self.host, self.port = urlsplit(self.url).hostname, urlsplit(self.url).port

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))
            if found := re.search(r"listening on (\S+)", line):
                self.url = found[1]
                self._is_listening.set()
        self._is_listening.set()

    def connect(self):
        return socket.create_connection((self.host, self.port), timeout=PATIENCE)

    def ask(self, method, path, body=None, headers=()):
        """One request on a connection of its own; a body that is not bytes is sent as JSON."""
        headers = dict(headers)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            headers = {"Content-Type": "application/json", **headers}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path, headers=()):
        return self.ask("GET", path, headers=headers)

    def post(self, path, body, headers=()):
        return self.ask("POST", path, body, headers)

    def complete(self, prompt="It was", **options):
        """A completion that must succeed."""
        answer = self.post("/v1/completions", {"prompt": prompt, **options})
        assert answer.status == 200, answer.body
        return answer.json()

    def client(self, key="none"):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)

    def metrics(self):
        """Samples by name, or by name and the values of their labels."""
        families = text_string_to_metric_families(self.get("/metrics").body.decode())
        samples = [sample for family in families for sample in family.samples]
        return {" ".join([one.name, *one.labels.values()]): one.value for one in samples}

    def wait_until(self, holds):
        """Ask for the metrics until they are as wanted -> the metrics."""
        for _ in range(PATIENCE * 20):
            metrics = self.metrics()
            if holds(metrics):
                return metrics
            threading.Event().wait(0.05)
        raise AssertionError(f"this never holds of the metrics: {metrics}")

    def wait_idle(self):
        """Wait until no text is open -> the metrics."""
        return self.wait_until(
            lambda metrics: not metrics["nbgpt_num_requests_running"] + metrics["nbgpt_num_requests_waiting"]
        )

    def resident(self):
        """Bytes of memory that the process has in use."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) * 1024

    def stop(self, number=signal.SIGTERM):
        """End it by a signal -> its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code


@contextmanager
def serving(*arguments, **options):
    """A server with these arguments at a free port. Options are those of `Popen`."""
    process = start("serve", "--port", 0, *arguments, **options)
    try:
        yield Server(process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def gauges(metrics):
    """Texts that run and that wait."""
    return metrics["nbgpt_num_requests_running"], metrics["nbgpt_num_requests_waiting"]


def events(body):
    """The objects of a whole stream of server-sent events, which ends as it must."""
    parts = body.decode().split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""], parts[-3:]
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


def choices_of(body):
    """The choices of an answer, whole or streamed, in one form: index -> text, seed, finish_reason, logprobs."""
    answers = events(body) if body.startswith(b"data: ") else [json.loads(body)]
    choices = {}
    for choice in (choice for answer in answers for choice in answer["choices"]):
        one = choices.setdefault(choice["index"], {"text": "", "logprobs": None})
        one["text"] += choice["text"]
        one |= {name: choice[name] for name in ("seed", "finish_reason") if name in choice}
        for name, values in (choice["logprobs"] or {}).items():
            one["logprobs"] = one["logprobs"] or {}
            one["logprobs"][name] = one["logprobs"].get(name, []) + values
    return choices
