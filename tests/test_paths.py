from pathlib import Path

import pytest

from nbgpt import paths


def test_merges_are_shipped():
    assert paths.shipped("vocab.bpe").is_file()


@pytest.mark.parametrize("installed", [True, False], ids=["wheel", "checkout"])
def test_shipped_in_a_wheel_and_in_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool):
    package = tmp_path / "nbgpt"
    folder = package / "data" if installed else tmp_path / "weights"
    folder.mkdir(parents=True)
    (folder / "model").touch()
    monkeypatch.setattr(paths, "__file__", str(package / "paths.py"))
    assert paths.shipped("model") == folder / "model"


def test_the_package_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for folder in (tmp_path / "weights", tmp_path / "nbgpt" / "data"):
        folder.mkdir(parents=True)
        (folder / "model").touch()
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "nbgpt" / "paths.py"))
    assert paths.shipped("model") == tmp_path / "nbgpt" / "data" / "model"


def test_what_is_not_shipped_is_named():
    with pytest.raises(FileNotFoundError, match=r"no-such-file is missing from .*data; install nbgpt again"):
        paths.shipped("no-such-file")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"NBGPT_HOME": "/models", "XDG_CACHE_HOME": "/cache"}, "/models"),
        ({"NBGPT_HOME": "~/models"}, "/home/ada/models"),
        ({"NBGPT_HOME": "", "XDG_CACHE_HOME": "/cache"}, "/cache/nbgpt"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/ada/.cache/nbgpt"),
        ({"XDG_CACHE_HOME": ""}, "/home/ada/.cache/nbgpt"),
        ({}, "/home/ada/.cache/nbgpt"),
    ],
)
def test_home(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str):
    monkeypatch.delenv("NBGPT_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert paths.home() == Path(expected)


@pytest.mark.parametrize(("chosen", "found"), [("~nobody-has-this-name/x", "NBGPT_HOME is"), ("", "HOME is not set")])
def test_no_home(monkeypatch: pytest.MonkeyPatch, chosen: str, found: str):
    monkeypatch.setenv("NBGPT_HOME", chosen)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user whom the system does not know
    with pytest.raises(ValueError, match=f"{found}.*: set NBGPT_HOME"):
        paths.home()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"NBGPT_HOME": "~/models"}, None),
        ({"NBGPT_HOME": "/models"}, "/models"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/nbgpt"),
    ],
)
def test_an_empty_home_is_none(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str | None):
    """Python would take it for the root, and root may write there."""
    for name in ("NBGPT_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if expected:
        assert paths.home() == Path(expected)
    else:
        with pytest.raises(ValueError, match="names no folder: set NBGPT_HOME"):
            paths.home()
