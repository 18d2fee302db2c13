"""The conversation at a terminal: what each line does to the text, and a real terminal."""

import itertools
import os
import pty
import select
import signal
import sys
import time

import pytest

import nbgpt
from nbgpt.cli.interactive import HELP, Repl, _value
from nbgpt.engine.request import Request

OPENING = "It was a dark and stormy night"


@pytest.fixture(scope="module")
def model():
    return nbgpt.load()


@pytest.fixture
def repl(model):
    return Repl(model, {"max_tokens": 8, "greedy": True})


def continued(model, text, **options):
    return model.generate(text, **{"max_tokens": 8, "greedy": True, **options}).text


def test_each_line_is_continued_and_the_text_grows(model, repl, capsys):
    repl.run(iter([OPENING, " He said", ""]))
    first = continued(model, OPENING)
    second = continued(model, f"{OPENING}{first} He said")
    third = continued(model, f"{OPENING}{first} He said{second}")
    assert repl.text == f"{OPENING}{first} He said{second}{third}"
    assert capsys.readouterr().out == f"{first}\n{second}\n{third}\n"


def test_undo_and_again(model, repl, capsys):
    repl.run(iter([OPENING, " He said", "/undo"]))
    text = OPENING + continued(model, OPENING)
    assert repl.text == text
    repl.run(iter(["/set greedy False", "/set seed 5", "/again"]))
    assert repl.text == OPENING + continued(model, OPENING, greedy=False, seed=5)
    repl.run(iter(["/undo", "/undo"]))
    assert repl.text == ""
    assert "there is nothing to undo" in capsys.readouterr().err


def test_settings(model, repl, capsys):
    repl.run(iter(['/set stop [","]', "/set max_tokens 20", "/set", OPENING]))
    assert repl.text == OPENING + continued(model, OPENING, max_tokens=20, stop=[","])
    assert "max_tokens 20\nstop [','] \n".replace(" \n", "\n") in capsys.readouterr().out.replace("greedy True\n", "")
    repl.run(iter(["/new", "/text"]))
    assert capsys.readouterr().out == "\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/set temperature -1", "temperature is -1"),
        ("/set top_p two", "top_p is "),
        ("/set temprature 1", "did you mean 'temperature'"),
        ("/set batch_size 2", "batch_size cannot be set here"),
        ("/set draft_model gpt2", "draft_model cannot be set here"),
        ("/set logit_bias 5", "logit_bias is 5"),
        ("/set prefix [1]", "prefix is [1]"),
        ("/sing", "no command is called /sing"),
    ],
)
def test_what_is_wrong_is_one_line_and_changes_nothing(repl, capsys, line, message):
    before = dict(repl.settings)
    repl.run(iter([line]))
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert (said.out, repl.settings, repl.text) == ("", before, "")


@pytest.mark.parametrize("written", [0, 2])
def test_an_error_of_the_model_leaves_the_text(model, repl, capsys, monkeypatch, written):
    """Whatever it is, and after however many pieces; what was being written again is still there."""
    repl.run(iter([OPENING]))
    text, take, n_calls = repl.text, Request.take, itertools.count()
    capsys.readouterr()

    def fail(self, *arguments):
        if next(n_calls) == written:
            raise OverflowError("too large")
        take(self, *arguments)

    for line in (" He said", "/again"):
        n_calls = itertools.count()
        monkeypatch.setattr(Request, "take", fail)
        repl.run(iter([line]))
        said = capsys.readouterr()
        assert (said.err, repl.text) == ("nbgpt: too large\n", text)
        assert said.out.endswith("\n") == bool(written)
        monkeypatch.undo()
    repl.run(iter(["/undo"]))
    assert repl.text == ""


def test_a_reader_that_has_gone_ends_the_program(repl, monkeypatch):
    monkeypatch.setattr("nbgpt.cli.interactive.write", lambda text: (_ for _ in ()).throw(BrokenPipeError))
    with pytest.raises(BrokenPipeError):
        repl.run(iter(["/text"]))


@pytest.mark.parametrize(
    ("line", "value"), [("true", True), ("false", False), ("null", None), ("True", True), ("[1, 2]", [1, 2])]
)
def test_values_are_as_in_python_or_json(line, value):
    assert _value(line) == value
    assert type(_value(line)) is type(value)


def test_quit_and_help(repl, capsys):
    repl.run(iter(["/help", "/quit", OPENING]))
    assert capsys.readouterr().out == HELP
    assert repl.text == ""


class Terminal:
    """A process at the other end of a terminal."""

    def __init__(self, *arguments, home):
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.environ.update(HOME=str(home), TERM="dumb")
            os.execv(sys.executable, [sys.executable, "-m", "nbgpt", *arguments])
        self.seen = ""

    def until(self, text, seconds=60):
        """Wait for a text; what comes up to it is forgotten."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} did not come; there is {self.seen!r}"
            if select.select([self.end], [], [], 0.1)[0]:
                self.seen += os.read(self.end, 4096).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text):
        os.write(self.end, text.encode())

    def leave(self):
        """End of input -> the exit code."""
        self.type("\x04")
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.end)


@pytest.fixture
def terminal(tmp_path):
    terminal = Terminal("repl", "--seed", "3", "--max-tokens", "700", home=tmp_path)
    yield terminal
    terminal.close()


def test_ctrl_c_stops_the_model_and_not_the_program(terminal):
    terminal.until("> ")
    terminal.type(OPENING + "\n")
    terminal.until(OPENING)
    terminal.until("the")  # it writes
    terminal.type("\x03")
    terminal.until("> ")
    terminal.type("/set max_tokens 5\n")
    terminal.until("> ")
    terminal.type("one line \\\n")
    terminal.until("  ")
    terminal.type("and another\n")
    terminal.until("another")
    terminal.until("> ")
    terminal.type("/text\n")
    assert "one line \r\nand another" in terminal.until("> ")
    assert terminal.leave() == 0
