"""Lines that are commands, numbers or text; and what happens to those that fail."""

import os
import signal

import pytest

from nbgpt.cli.lines import LinesSkippedError
from nbgpt.cli.writer.repl import Repl

OPENING = "It was a dark and stormy night"


@pytest.fixture
def repl(workspace):
    return Repl(workspace, is_interactive=True)


@pytest.fixture
def piped(new_workspace):
    return Repl(new_workspace(is_interactive=False), is_interactive=False)


def test_text_and_commands(repl, story, capsys):
    repl.run(iter([OPENING, "/set seed 9", "", "/text", "/quit", "never"]))
    first = story.generate(OPENING, max_tokens=8, seed=3).text
    second = story.generate(OPENING + first, max_tokens=8, seed=9).text
    assert repl.workspace.text == OPENING + first + second
    assert capsys.readouterr().out == f"{first}\n{second}\n{repl.workspace.text}\n"


def test_two_slashes_begin_a_text_with_one(repl):
    repl.run(iter(["//etc/passwd is"]))
    assert repl.workspace.text.startswith("/etc/passwd is")


def test_a_number_picks_one_only_after_alternatives(repl, story):
    repl.run(iter(["7"]))
    assert repl.workspace.text == "7" + story.generate("7", max_tokens=8, seed=3).text
    repl.run(iter(["/alternatives", "/tokens", " 2 "]))
    word = repl.workspace.manuscript.spans[-1]
    before = repl.workspace.text
    assert word.is_written
    repl.run(iter(["2"]))
    assert repl.workspace.text.startswith(before + " 2")
    repl.run(iter(["/alternatives", "No", "3"]))
    assert " No" in repl.workspace.text
    assert " 3" in repl.workspace.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/sing", "no command is called /sing"),
        ("/set temperature 5000", "temperature is 5000, which is unlikely"),
        ("/load nowhere.txt", "nowhere.txt: No such file or directory"),
        ("caf\udce9", "the line is not UTF-8 (byte 0xe9 at 3)"),
    ],
)
def test_what_is_wrong_is_one_line_and_changes_nothing(repl, piped, capsys, line, message):
    repl.run(iter([line]))
    said = capsys.readouterr()
    assert said.err.startswith(f"nbgpt: {message}")
    assert (said.err.count("\n"), said.out, repl.workspace.text) == (1, "", "")
    with pytest.raises(LinesSkippedError, match="1 of 2 lines failed"):
        piped.run(iter(["", line]))
    assert capsys.readouterr().err.startswith(f"nbgpt: line 2: {message}")


def test_ctrl_c_between_texts(repl, piped, monkeypatch):
    def interrupted(line):
        raise KeyboardInterrupt

    for one in (repl, piped):
        monkeypatch.setattr(one, "take", interrupted)
    repl.run(iter(["/why", "/why"]))
    with pytest.raises(KeyboardInterrupt):
        piped.run(iter(["/why"]))


def test_a_reader_that_has_gone_ends_the_program(repl, monkeypatch):
    def broken(*arguments, **options):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    with pytest.raises(BrokenPipeError):
        repl.run(iter([OPENING]))


@pytest.mark.parametrize("lines", [[OPENING], [OPENING, "/quit"]])
def test_a_text_that_was_not_saved_is_kept(repl, capsys, home, lines):
    file = home / "unsaved.txt"
    repl.run(iter(lines))
    assert file.read_text() == repl.workspace.text + "\n"
    assert capsys.readouterr().err == f"nbgpt: the text was not saved; until the next one, it is in {file}\n"
    file.unlink()


def test_what_is_in_a_file_or_piped_is_not_kept(repl, piped, home, tmp_path, capsys):
    (home / "unsaved.txt").unlink(missing_ok=True)
    repl.run(iter([OPENING, f"/save {tmp_path}/story.txt"]))
    repl.run(iter(["/new"]))
    repl.run(iter([f"/load {tmp_path}/story.txt"]))
    piped.run(iter([OPENING]))
    assert not (home / "unsaved.txt").exists()
    assert "was not saved" not in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_terminal_that_is_closed_does_not_take_the_text(repl, tmp_path, monkeypatch, number):
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path))
    before = signal.getsignal(number)

    def lines():
        yield OPENING
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        yield "/new"

    with pytest.raises(SystemExit) as ended:
        repl.run(lines())
    assert ended.value.code == 128 + number
    assert (tmp_path / "unsaved.txt").read_text() == repl.workspace.text + "\n"
    assert repl.workspace.text.startswith(OPENING)
    assert signal.getsignal(number) is before


def test_a_text_that_new_has_ended_is_kept(repl, tmp_path, monkeypatch):
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path))
    repl.run(iter([OPENING, "/new"]))
    assert (tmp_path / "unsaved-before.txt").read_text().startswith(OPENING)
    assert not (tmp_path / "unsaved.txt").exists()
