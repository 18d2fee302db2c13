"""`chat` with lines of standard input, and at a terminal."""

import json
import sys

import pytest

import nbgpt
from nbgpt.cli import chat as chat_module
from nbgpt.cli.main import main
from nbgpt.tasks.chat import Chat

OPTIONS = ("--max-tokens", 12, "--seed", 3)


@pytest.fixture(scope="module")
def chat():
    return Chat(nbgpt.load(), max_tokens=12, seed=3)


def answers(chat, *messages):
    chat.exchanges.clear()
    return ["".join(chat.stream(message)) for message in messages]


def test_lines(run, chat):
    code, out, _ = run("chat", *OPTIONS, stdin=b"Who are you?\nWhy?\n")
    assert (code, out) == (0, "".join(f"{answer}\n" for answer in answers(chat, "Who are you?", "Why?")))


def test_json(run, chat):
    _, out, _ = run("chat", "--json", *OPTIONS, stdin=b"Who are you?\n")
    content = answers(chat, "Who are you?")[0].rstrip()
    assert json.loads(out) == {"role": "assistant", "content": content, "seed": 3, "n_dropped": 0}


def test_a_terminal(chat, monkeypatch, capsys):
    typed = ["Who are you?", "/undo", "Who are you?", "/new", "Why?", "word " * 3000, "Why?", "/quit", "never"]
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(chat_module, "_lines", lambda is_terminal: iter(typed))
    assert main(["chat", *map(str, OPTIONS)]) == 0
    said = capsys.readouterr()
    (who,), why = answers(chat, "Who are you?"), answers(chat, "Why?", "Why?")
    assert said.out == "".join(f"{answer}\n" for answer in (who, who, *why))
    assert "shorten it" in said.err


def test_left_out_exchanges_are_said(run):
    lines = b"".join(b"number %d " % n * 60 + b"\n" for n in range(9))
    _, out, err = run("chat", "-n", 2, "--seed", 1, stdin=lines)
    assert out.count("\n") >= 9
    assert "the oldest exchanges, 1, were left out" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--template", "nowhere.jinja"], "nowhere.jinja: No such file"),
        (["--temperature", "-1"], "--temperature is -1"),
        (["--seed", "1"], "a prompt of"),
    ],
)
def test_bad_input(fails, arguments, message):
    assert message in fails("chat", *arguments, stdin=b"word " * 3000)[1]
