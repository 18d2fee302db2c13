"""Each command on a text, and what it refuses in one line."""

import os

import pytest

from nbgpt.cli.writer import files
from nbgpt.cli.writer.commands import COMMANDS, named, overview
from nbgpt.cli.writer.inspection import next_words, tokens_table, why_table
from nbgpt.cli.writer.settings import SETTABLE

OPENING = "It was a dark and stormy night"


@pytest.fixture
def do(workspace):
    """Runs a command on a text that the model has continued."""
    workspace.add(OPENING)

    def do(line):
        name, _, typed = line.partition(" ")
        named(name).run(workspace, typed)

    return do


def test_undo_and_redo_go_over_everything(do, workspace, monkeypatch, tmp_path, capsys):
    (tmp_path / "story.txt").write_text("A story of a file\n")
    monkeypatch.setattr(files, "edit", lambda text: text + " and an edit")
    texts = [workspace.text]
    for line in (
        "again",
        "end sentence",
        "edit",
        "new",
        f"load {tmp_path}/story.txt",
        "alternatives",
        "alternatives 2",
    ):
        do(line)
        if line != "alternatives":
            texts.append(workspace.text)
    workspace.add("He said")
    texts.append(workspace.text)
    assert len(set(texts)) == len(texts)
    for text in texts[-2::-1]:
        do("undo")
        assert workspace.text == text
    do("undo")
    assert workspace.text == ""
    for text in texts:
        do("redo")
        assert workspace.text == text
    said = capsys.readouterr().err
    for change in ("/new", "/edit", "/again", "/end sentence", OPENING, "He said", "the word "):
        assert f"nbgpt: taken back: {change}" in said
        assert f"nbgpt: made again: {change}" in said


def test_text_and_new(do, workspace, capsys):
    text = workspace.text
    capsys.readouterr()
    do("text")
    assert capsys.readouterr().out == text + "\n"
    do("new")
    assert workspace.text == ""


def test_save_and_load(do, workspace, tmp_path, capsys):
    path, text = tmp_path / "a story.txt", workspace.text
    do(f"save {path}")
    assert path.read_text() == text + "\n"
    with pytest.raises(ValueError, match=f"{path} is there already; /save! {path} replaces it"):
        do(f"save {path}")
    do("new")
    do(f"save! {path}")
    assert path.read_text() == "\n"
    do("undo")
    do(f"save! {path}")
    do("new")
    do(f"load {path}")
    assert workspace.text == text
    assert f"nbgpt: {len(text)} characters are in {path}\n" in capsys.readouterr().err


def test_a_failed_load_leaves_the_text(do, workspace, tmp_path):
    text = workspace.text
    (tmp_path / "latin").write_bytes(b"\xff")
    for name in ("none", "latin", ""):
        with pytest.raises((ValueError, OSError)):
            do(f"load {tmp_path / name}")
        assert workspace.text == text
    with pytest.raises(OSError, match="No such file"):
        do(f"save {tmp_path / 'nowhere' / 'story.txt'}")


def test_load_says_what_the_model_sees(do, workspace, tmp_path, capsys):
    n_ctx = workspace.model.config.n_ctx
    (tmp_path / "long.txt").write_text("word " * (n_ctx + 1))
    do(f"load {tmp_path}/long.txt")
    assert f"tokens; the model sees the last {n_ctx}\n" in capsys.readouterr().err


def test_a_home_folder(do, workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    do("save ~/story.txt")
    assert os.listdir(tmp_path) == ["story.txt"]  # noqa: PTH208
    with pytest.raises(ValueError, match="nobody's home folder"):
        do("save ~nobody-of-this-name/story.txt")


def test_edit(do, workspace, monkeypatch, capsys):
    text = workspace.text
    monkeypatch.setattr(files, "edit", lambda text: text)
    do("edit")
    assert "the text is as it was" in capsys.readouterr().err
    monkeypatch.setattr(files, "edit", lambda text: text.replace("dark", "bright"))
    do("edit")
    assert workspace.text == text.replace("dark", "bright")
    assert workspace.manuscript.spans[-1].is_written


def test_end(do, workspace):
    do("set max_tokens 100")
    before = workspace.text
    do("end sentence")
    assert workspace.text.startswith(before)
    assert workspace.text.rstrip("\"'”’)")[-1] in ".!?…"


def test_alternatives(do, workspace, capsys):
    before = workspace.text
    capsys.readouterr()
    do("alternatives")
    words, p_end = next_words(workspace.model, before)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(words) + 2
    for number, (line, word) in enumerate(zip(lines, words, strict=False), 1):
        assert line.split()[:3] == [str(number), f"{100 * word.probability:.1f}", "%"]
    assert lines[len(words)].split() == [f"{100 * p_end:.1f}", "%", "the", "text", "ends", "here"]
    do("alternatives 3")
    assert workspace.text == before + words[2].text
    assert workspace.manuscript.spans[-1].is_written


@pytest.mark.parametrize("line", ["undo", "again", "new"])
def test_words_are_picked_for_the_text_that_they_were_for(do, line):
    do("alternatives")
    do(line)
    with pytest.raises(ValueError, match="there are no words to pick from"):
        do("alternatives 1")


@pytest.mark.parametrize("number", ["0", "10", "x", "-1"])
def test_numbers_that_are_no_words(do, workspace, number):
    with pytest.raises(ValueError, match="there are no words to pick from: /alternatives lists them"):
        do(f"alternatives {number}")
    do("alternatives")
    with pytest.raises(ValueError, match=f"{number} is none of the words; pick a number from 1 to 9"):
        do(f"alternatives {number}")


def test_tokens_and_why(do, workspace, capsys):
    text = workspace.text
    capsys.readouterr()
    columns = workspace.display.columns()
    for line, table in (
        ("tokens", tokens_table(workspace.model, text, columns)),
        ("tokens Once upon", tokens_table(workspace.model, "Once upon", columns)),
        ("why", why_table(workspace.model, text)),
    ):
        do(line)
        assert capsys.readouterr().out == table + "\n"


def test_settings(do, workspace, capsys):
    capsys.readouterr()
    do("set temperature 0.5")
    assert (workspace.settings["temperature"], capsys.readouterr().out) == (0.5, "")
    do("set")
    assert "temperature         0.5\n" in capsys.readouterr().out
    do("set temperature")
    assert capsys.readouterr().out == workspace.settings.explained("temperature") + "\n"
    for line in ("set temperature 5000", "set temperature cold", "set logit_bias 5", "set warmth 1"):
        with pytest.raises(ValueError, match=r"temperature|logit_bias|warmth"):
            do(line)
    assert workspace.settings["temperature"] == 0.5


def test_help(do, capsys):
    do("help")
    assert capsys.readouterr().out == overview() + "\n"
    for name, command in COMMANDS.items():
        assert f"\n  /{name}" in overview()
        do(f"help {name}")
        said = capsys.readouterr().out
        assert said.startswith(f"/{name}")
        assert " ".join(said.split()).endswith(" ".join(command.about.split()))
    for name in SETTABLE.keys() - COMMANDS.keys():
        do(f"help {name}")
        assert capsys.readouterr().out.startswith(f"{name}: ")
    do("help /why")
    assert capsys.readouterr().out.startswith("/why: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tokns", "no command is called /tokns; did you mean /tokens?"),
        ("x", "no command is called /x; /help lists those there are"),
        ("agian", "did you mean /again?"),
        ("again never", "/again never: it must be /again or /again same"),
        ("end", "/end: it must be /end sentence or /end paragraph"),
        ("save", "/save needs the name of a file: /save story.txt"),
        ("redo", "there is nothing to redo"),
        ("help nothing", "no command is called /nothing"),
    ],
)
def test_what_is_refused(do, workspace, line, message):
    text = workspace.text
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is compared below
        do(line)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert workspace.text == text
