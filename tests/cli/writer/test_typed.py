"""Files in the user's folder."""

from nbgpt.cli.writer.typed import writable_file


def test_where_the_history_is(monkeypatch, tmp_path):
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path / "a" / "b"))
    assert writable_file("history") == str(tmp_path / "a" / "b" / "history")
    (tmp_path / "file").touch()
    monkeypatch.setenv("NBGPT_HOME", str(tmp_path / "file"))
    assert writable_file("history") is None
