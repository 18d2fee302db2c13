"""Commands in messages, as this user types them."""

import shutil
import sys

import pytest

from nbgpt.cli.invocation import as_called, command, installation, with_flags

MESSAGE = 'run `python -m nbgpt download gpt2`, which needs pip install "nbgpt[download]"'


@pytest.mark.parametrize(
    ("program", "name"),
    [("/x/bin/nbgpt", "nbgpt"), ("nbgpt.exe", "nbgpt"), ("/x/nbgpt/__main__.py", "python -m nbgpt"), ("-c", None)],
)
def test_the_command(monkeypatch, program, name):
    monkeypatch.setattr(sys, "argv", [program])
    assert command() == (name or "python -m nbgpt")


@pytest.mark.parametrize(
    ("prefix", "pip", "expected"),
    [
        ("/home/a/.local/share/pipx/venvs/nbgpt", None, 'pipx inject nbgpt "nbgpt[download]"'),
        ("/home/a/.local/share/uv/tools/nbgpt", None, 'uv tool install --with "nbgpt[download]" nbgpt'),
        ("/work/.venv", "/work/.venv/bin/pip", 'pip install "nbgpt[download]"'),
        ("/work/.venv", "/usr/bin/pip", '/work/.venv/bin/python -m pip install "nbgpt[download]"'),
        ("/work/.venv", None, '/work/.venv/bin/python -m pip install "nbgpt[download]"'),
    ],
)
def test_installing(monkeypatch, prefix, pip, expected):
    monkeypatch.setattr(sys, "prefix", prefix)
    monkeypatch.setattr(sys, "executable", f"{prefix}/bin/python")
    monkeypatch.setattr(sys, "argv", ["nbgpt"])
    monkeypatch.setattr(shutil, "which", lambda name: pip)
    assert installation("nbgpt[download]") == expected
    assert as_called(MESSAGE) == f"run `nbgpt download gpt2`, which needs {expected}"


@pytest.mark.parametrize(("mark", "expected"), [("pipx_metadata.json", "pipx inject"), ("uv-receipt.toml", "uv tool")])
def test_installing_where_the_tool_has_another_home(monkeypatch, tmp_path, mark, expected):
    (tmp_path / mark).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert installation("nbgpt[download]").startswith(expected)


def test_a_python_below_the_current_folder_is_named_from_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert installation("x") == '.venv/bin/python -m pip install "x"'


def test_flags():
    assert with_flags("top_k is -1; it must be from 0") == "--top-k is -1; it must be from 0"
    assert with_flags("bad_words has an empty one") == "--bad-word has an empty one"
    assert with_flags('too long: overflow="truncate_left" drops it') == "too long: --overflow truncate_left drops it"
    assert with_flags("the file top_k is damaged") == "the file top_k is damaged"
