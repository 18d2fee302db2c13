"""Lines from a pipe, and from a real terminal with readline."""

import io
import os
import sys

import pytest
from pseudo_terminal import Terminal

from nbgpt.cli.writer.completion import completions
from nbgpt.cli.writer.front import open_front
from nbgpt.formats import FormatError

OPENING = "It was a dark and stormy night"


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\n\nb", ["a", "", "b"]),
        (b"one \\\ntwo\nthree\n", ["one \ntwo", "three"]),
        (b"one\\", ["one"]),
        ("é\n".encode(), ["é"]),
    ],
)
def test_a_pipe(monkeypatch, capsys, data, lines):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))
    front = open_front(completions, keeps_typed=False)
    assert (list(front.lines), front.is_interactive, front.keeps_typed) == (lines, False, True)
    assert capsys.readouterr() == ("", "")


def test_a_pipe_that_is_not_utf_8(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\n")))
    lines = open_front(completions, keeps_typed=False).lines
    assert next(lines) == "a"
    with pytest.raises(FormatError, match=r"^line 2 of standard input is not UTF-8"):
        next(lines)


def test_no_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert list(open_front(completions, keeps_typed=False).lines) == []


def test_readline_at_a_terminal(home):
    """TERM=dumb has no prompt_toolkit. Ctrl-C stops the model, and not the program."""
    with Terminal("repl", "--seed", 3, "-n", 700, lines=60, TERM="dumb", NBGPT_HOME=home) as terminal:
        terminal.ready()
        terminal.type(OPENING + "\r")
        terminal.until("the")
        terminal.type("\x03")
        terminal.ready()
        terminal.enter("/new")
        terminal.enter("/set max_tokens 5")
        terminal.type("one line \\\r")
        terminal.until(lambda: terminal.screen.cursor.x == 2 and "one line \\" in terminal.text)
        terminal.type("and another\r")
        terminal.until(lambda: terminal.text.count("and another") == 1)
        terminal.ready()
        terminal.type("/ag\t")
        terminal.until("> /again")
        terminal.type("\r")
        terminal.ready()
        terminal.enter("/text")
        assert "\none line\nand another" in terminal.text
        assert {fg for fg, bg in terminal.color_of("and another")} == {"default"}
        terminal.type("\x1b[A")
        terminal.until(lambda: terminal.text.count("> /text") == 2)  # as typed, and from the history
        terminal.interrupt_line()
        assert terminal.leave() == 0
    assert "one line" in (home / "history").read_text()


def test_readline_where_prompt_toolkit_is_not_installed(home, tmp_path):
    (tmp_path / "prompt_toolkit.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    with Terminal("repl", "--seed", 3, "-n", 20, NBGPT_HOME=home, PYTHONPATH=path) as terminal:
        terminal.enter(OPENING)
        assert f"> {OPENING}\n. All about us" in terminal.text
        assert terminal.color_of(". All about us") == {("cyan", "default")}
        assert terminal.leave() == 0
