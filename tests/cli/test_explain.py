"""`explain`: where the page goes, and what is said when it cannot go there."""

import json
import os
import re
import resource
import signal
import socket
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from command_line import start
from folders import TOKENIZER

from nbgpt.analysis.explain import MAX_TOKENS
from nbgpt.cli.main import main


def _data_of(page):
    return json.loads(re.search(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)[1])


@pytest.fixture
def explain(random_file, capsys, monkeypatch, tmp_path):
    """Runs the command in an empty folder -> exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def explain(*arguments):
        code = main(["explain", "--model", str(random_file), "-t", "1", *map(str, arguments)])
        return code, *capsys.readouterr()

    return explain


def test_the_command_writes_to_standard_output(explain, tmp_path):
    code, out, err = explain("it was a dark and stormy night")
    assert (code, err) == (0, "")
    assert _data_of(out)["model"] == "random float32"
    assert explain("it was a dark and stormy night", "-o", "-")[1] == out
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_file(explain, tmp_path):
    out = explain("it was", "--bos")[1]
    (tmp_path / "page.html").write_text("older")
    assert explain("it was", "--bos", "-o", "page.html") == (0, "page.html\n", "")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == out
    assert _data_of(out)["ids"] == [TOKENIZER.eos_id, *TOKENIZER.encode("it was")]


def test_a_terminal_is_spared(explain, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert explain("it was") == (0, "explain.html\n", "")
    before = (tmp_path / "explain.html").read_bytes()
    assert b"<title>" in before
    assert explain("another") == (2, "", "nbgpt: explain.html is here already: choose a file with -o\n")
    assert (tmp_path / "explain.html").read_bytes() == before
    assert explain("it was", "-o", "-")[1].encode() == before


def test_text_from_standard_input(explain, tmp_path, monkeypatch):
    (tmp_path / "text").write_text("it was\n")
    with (tmp_path / "text").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert _data_of(explain("-")[1])["ids"] == TOKENIZER.encode("it was")


def test_errors_of_the_command(explain, tmp_path, monkeypatch):
    code, out, err = explain(" the" * 1100)
    assert (code, out) == (2, "")
    assert err == f"nbgpt: the text has 1100 tokens; a page shows at most {MAX_TOKENS}: shorten it\n"
    for arguments, said in (
        (("--serve", "-o", "page.html"), "--serve writes no file: leave --output out"),
        (("--port", 8000), "--port is for --serve, which is not given"),
        (("--serve", "--port", 70000), "--port is 70000; it must be from 0 to 65535"),
    ):
        assert explain("it was", *arguments) == (2, "", f"nbgpt: {said}\n")
    code, out, err = explain("it was", "-o", tmp_path / "nowhere" / "page.html")
    assert (code, out) == (1, "")
    assert "page.html: No such file or directory" in err
    assert explain("it was", "-o", tmp_path) == (
        1,
        "",
        f"nbgpt: {tmp_path}: this is a folder; the name of a file is wanted\n",
    )


def test_the_page_holds_every_part_that_is_off(explain):
    switches = _data_of(explain("it was a dark and stormy night")[1])["switches"]
    assert switches["ids"]["shape"] == [2 * (3 + 1), 10]


def test_it_serves_a_page_until_it_is_interrupted(random_file):
    """As a process: the address on standard output, the page at it, and Ctrl-C ends it."""
    process = start("explain", "it was a dark", "--serve", "--model", random_file, "-t", "1")
    try:
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=60) as answer:
            assert _data_of(answer.read().decode())["ids"] == TOKENIZER.encode("it was a dark")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()


def test_a_port_that_is_taken(explain):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = explain("it was", "--serve", "--port", port)
    assert (code, out) == (1, "")
    assert err == f"nbgpt: port {port} of 127.0.0.1: Address already in use\n"


def test_a_disk_that_is_full_leaves_the_old_page(explain, tmp_path):
    (tmp_path / "page.html").write_text("older")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        said = explain("it was", "-o", "page.html")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said == (1, "", "nbgpt: page.html: File too large\n")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["older"]


def test_what_is_no_file_is_written_to_as_it_is(explain, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as reader:  # the pipe's buffer holds less than a page
        read = reader.submit((tmp_path / "pipe").read_bytes)
        assert explain("it was", "-o", "pipe") == (0, "pipe\n", "")
        assert read.result(timeout=60).startswith(b"<!doctype html>")
    assert (tmp_path / "pipe").is_fifo()
