import base64
import http.server
import socket
import sys
import threading

import pytest

from nbgpt.batch.job import Answer
from nbgpt.batch.progress import Progress, Summary, publisher
from nbgpt.batch.row import row_of

ANSWER = Answer(row_of(0, "f", 1, {}), {}, "", 5, 7)


def test_counts():
    summary = Summary(rows=10, resumed=3)
    with Progress(summary) as progress:
        progress.note(ANSWER)
        progress.add(4, 10, 20)
    assert (summary.answered, summary.prompt_tokens, summary.new_tokens) == (5, 15, 27)
    summary.seconds = 2.0
    assert summary.to_dict()["rows_per_second"] == 2.5
    assert summary.to_dict()["tokens_per_second"] == 21
    assert str(summary).startswith(
        "10 rows, 3 of them before, 0 failed; 2.0 s, 2.5 rows/s, 21 tokens/s (15 read, 27 new)"
    )


def test_textfile(tmp_path):
    pytest.importorskip("prometheus_client", reason="metrics need prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families

    path = tmp_path / "batch.prom"
    with Progress(Summary(rows=10, resumed=3), publisher(str(path), "0/1")) as progress:
        assert "nbgpt_batch_rows 10.0" in path.read_text()
        progress.note(ANSWER)
        progress.summary.failed = 2
    found = {family.name: family.samples[0].value for family in text_string_to_metric_families(path.read_text())}
    assert found["nbgpt_batch_answered"] == 1
    assert (found["nbgpt_batch_failed"], found["nbgpt_batch_resumed"], found["nbgpt_batch_new_tokens"]) == (2, 3, 7)
    with pytest.raises(OSError, match="nothing"):
        Progress(Summary(), publisher(str(tmp_path / "nothing" / "batch.prom"), "0/1"))


def test_gateway():
    pytest.importorskip("prometheus_client", reason="metrics need prometheus_client")
    bodies = []

    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Progress(Summary(rows=10), publisher(f"http://127.0.0.1:{server.server_port}", "2/3")) as progress:
            progress.note(ANSWER)
        server.shutdown()
    part = base64.urlsafe_b64encode(b"2/3").decode()
    path = f"/metrics/job/nbgpt_batch/instance/{socket.gethostname()}/part@base64/{part}"
    assert [path for path, _ in bodies] == [path] * 2
    assert "nbgpt_batch_answered 1.0" in bodies[-1][1]


def test_a_gateway_that_does_not_answer_is_noted_once(capsys):
    pytest.importorskip("prometheus_client", reason="metrics need prometheus_client")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with Progress(Summary(), publisher(f"http://127.0.0.1:{silent.getsockname()[1]}", "0/1")) as progress:
            progress.note(ANSWER)
    assert capsys.readouterr().err.count("nbgpt: the metrics cannot be told: http://127.0.0.1:") == 1


def test_a_run_does_not_end_because_its_metrics_cannot_be_told():
    told = []

    def publish(summary):
        if told:
            raise OSError("gone")
        told.append(summary)

    with Progress(Summary(), publish) as progress:
        progress.note(ANSWER)
    assert told == [progress.summary]


def test_without_prometheus_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r'pip install "nbgpt\[serve\]"'):
        publisher("x", "0/1")
