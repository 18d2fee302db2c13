"""Files, settings and their values that Tab offers."""

from nbgpt.cli.writer.candidates import paths, settings, words
from nbgpt.cli.writer.settings import SETTABLE


def test_paths(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    for name in ("b.txt", "a b.txt", ".hidden", "folder/c.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [one.text for one in paths("x")] == ["a b.txt", "b.txt", "folder/"]
    assert [one.text for one in paths("folder/")] == ["folder/c.txt"]
    assert [one.text for one in paths(f"{tmp_path}/folder/c")] == [f"{tmp_path}/folder/c.txt"]
    assert [one.text for one in paths("~/folder/")] == ["~/folder/c.txt"]
    assert paths("nowhere/") == paths("~nobody-of-this-name/") == []


def test_settings():
    assert {one.text: one.meaning for one in settings("te")} == {name: one.help for name, one in SETTABLE.items()}
    assert [one.text for one in settings("color p")] == ["model", "probability", "off"]
    assert [one.text for one in settings("greedy ")] == ["on", "off"]
    assert settings("temperature ") == settings("nothing ") == []


def test_words():
    assert [one.text for one in words("a", "b")("x")] == ["a", "b"]
