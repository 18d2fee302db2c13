"""Texts in files, all or nothing, and an editor that is a script."""

import signal
import sys

import pytest

from nbgpt.cli.writer import files
from nbgpt.cli.writer.files import edit, editor, load, save
from nbgpt.formats import FormatError


@pytest.fixture
def at_a_terminal(monkeypatch):
    monkeypatch.setattr(files, "is_terminal", lambda stream: True)


@pytest.fixture
def editor_that(tmp_path, monkeypatch):
    """Makes an editor of the body of a Python program, in which `path` is the file."""

    def editor_that(body):
        script = tmp_path / "an editor.py"
        script.write_text(f"import sys, pathlib\npath = pathlib.Path(sys.argv[1])\n{body}\n")
        monkeypatch.setenv("EDITOR", f"{sys.executable} '{script}'")
        monkeypatch.delenv("VISUAL", raising=False)

    return editor_that


@pytest.mark.parametrize("text", ["", "Naïve café 😀", "two\nlines", "a line\n"])
def test_what_is_saved_can_be_loaded(tmp_path, text):
    save(text, tmp_path / "story.txt")
    assert (tmp_path / "story.txt").read_bytes() == text.encode() + b"\n"
    assert load(tmp_path / "story.txt") == text
    assert [path.name for path in tmp_path.iterdir()] == ["story.txt"]


def test_files_of_other_systems(tmp_path):
    (tmp_path / "dos.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert load(tmp_path / "dos.txt") == "one\ntwo"


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (None, OSError, "No such file"),
        (b"abc\xff", FormatError, "is not UTF-8 .byte 0xff at 3.: convert it"),
        (b"abc\0", ValueError, "is no text: it has zero bytes"),
        (b"a" * (16 * 2**20 + 1), ValueError, "has 16 MiB; a text may have 16 MiB"),
    ],
    ids=["none", "latin-1", "binary", "large"],
)
def test_what_cannot_be_read(tmp_path, data, error, message):
    path = tmp_path / "story.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(error, match=message):
        load(path)


def test_folders_and_pipes_are_no_texts(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a folder; the name of a text is wanted"):
        load(tmp_path)
    with pytest.raises(ValueError, match="is no regular file"):
        load(tmp_path / "pipe")


def test_edit(at_a_terminal, editor_that):
    editor_that("path.write_text(path.read_text().replace('dark', 'bright'))")
    assert edit("It was dark") == "It was bright"
    editor_that("path.write_text('no line break')")
    assert edit("It was dark") == "no line break"


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("sys.exit(3)", ValueError, "the editor .* ended with 3; the text is as it was"),
        ("path.write_bytes(b'\\xff')", FormatError, "is not UTF-8"),
        ("path.unlink()", OSError, "No such file"),
    ],
)
def test_an_editor_that_fails(at_a_terminal, editor_that, body, error, message):
    editor_that(body)
    with pytest.raises(error, match=message):
        edit("It was dark")


def test_ctrl_c_is_left_to_the_editor(at_a_terminal, editor_that):
    """An editor that sends this process what the terminal sends to both."""
    before = signal.getsignal(signal.SIGINT)
    editor_that("import os, signal; os.kill(os.getppid(), signal.SIGINT)")
    assert edit("It was dark") == "It was dark"
    assert signal.getsignal(signal.SIGINT) is before


def test_an_editor_needs_a_terminal(editor_that, monkeypatch):
    editor_that("")
    monkeypatch.setattr(files, "is_terminal", lambda stream: stream is not files.sys.stdin)
    with pytest.raises(ValueError, match="an editor needs a terminal"):
        edit("")


def test_which_editor(monkeypatch, capsys):
    monkeypatch.setenv("EDITOR", "ed -s")
    monkeypatch.delenv("VISUAL", raising=False)
    assert editor() == ["ed", "-s"]
    monkeypatch.setenv("VISUAL", "emacs -nw")
    assert editor() == ["emacs", "-nw"]
    monkeypatch.setenv("VISUAL", "em'acs")
    with pytest.raises(ValueError, match='VISUAL is "em\'acs": No closing quotation'):
        editor()
    monkeypatch.delenv("VISUAL")
    monkeypatch.setenv("EDITOR", " ")
    monkeypatch.setattr(files.shutil, "which", lambda name: name == "vi")
    assert editor() == ["vi"]
    assert capsys.readouterr().err == "nbgpt: EDITOR is not set; vi is taken\n"
    monkeypatch.setattr(files.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"EDITOR is not set, and neither nano nor vi is there: export EDITOR=\.\.\."):
        editor()


def test_an_editor_that_is_not_there(at_a_terminal, monkeypatch, tmp_path):
    monkeypatch.setenv("EDITOR", str(tmp_path / "none"))
    monkeypatch.delenv("VISUAL", raising=False)
    with pytest.raises(ValueError, match="none: No such file or directory; set EDITOR to another one"):
        edit("")


def test_what_an_editor_left_is_kept_when_it_cannot_be_read(at_a_terminal, editor_that, tmp_path, monkeypatch):
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path))
    editor_that("path.write_bytes(b'an hour of work: caf\\xe9')")
    with pytest.raises(FormatError, match=r"is not UTF-8 .*; until the next time, .* is in .*edited.txt"):
        edit("It was dark")
    assert (tmp_path / "edited.txt").read_bytes() == b"an hour of work: caf\xe9"
