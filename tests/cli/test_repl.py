"""`repl` as a command: what it is started with, and a pipe. tests/cli/writer has the rest."""

import signal

import pytest
from command_line import start

import nbgpt

OPENING = "It was a dark and stormy night"


@pytest.mark.parametrize(
    ("options", "message"), [(["--max-tokens", "0"], "--max-tokens is 0"), (["--seed", "-1"], "--seed is -1")]
)
def test_what_it_is_started_with_is_tried(fails, options, message):
    code, line = fails("repl", *options, stdin=b"Once\n")
    assert (code, line.startswith(f"{message}; it must be ")) == (2, True)


def test_a_pipe_gets_the_continuations_alone(run):
    text = nbgpt.load().generate(OPENING, max_tokens=20, seed=3).text
    more = nbgpt.load().generate(f"{OPENING}{text} He said", max_tokens=20, seed=3).text
    assert run("repl", "--seed", 3, "-n", 20, stdin=f"{OPENING}\nHe said\n".encode()) == (0, f"{text}\n{more}\n", "")


def test_the_first_text_is_that_of_generate(run):
    _, alone, _ = run("generate", OPENING, "-q", "--seed", 7, "-n", 20)
    assert run("repl", "--seed", 7, "-n", 20, stdin=OPENING.encode())[1] == alone


def test_a_line_that_fails_is_named_and_the_others_are_done(run):
    code, out, err = run("repl", "--seed", 3, "-n", 5, stdin=f"/sett\n{OPENING}\n".encode())
    assert (code, out) == (3, nbgpt.load().generate(OPENING, max_tokens=5, seed=3).text + "\n")
    assert err == "nbgpt: line 1: no command is called /sett; did you mean /set?\nnbgpt: 1 of 2 lines failed\n"


def test_an_editor_needs_a_terminal(run):
    code, out, err = run("repl", stdin=b"/edit\n")
    assert (code, out, err.splitlines()[0]) == (3, "", "nbgpt: line 1: an editor needs a terminal, and this is none")


def test_ctrl_c_in_a_pipe_keeps_what_is_written_and_ends(tmp_path):
    (tmp_path / "lines").write_text(f"{OPENING}\nHe said\n")
    with (tmp_path / "lines").open() as lines:
        process = start("repl", "--seed", 3, "-n", 10**6, stdin=lines)
        first = process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        out = first + process.stdout.read()
    assert process.wait(timeout=60) == 130
    assert out.endswith("\n")
    assert process.stderr.read() == ""
