"""Completion, by bash itself."""

import shutil
import subprocess
import sys

import pytest

COMPLETE = """
source "$1"
COMP_WORDS=($2) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_shtab_nbgpt
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [("nbgpt gener", "generate"), ("nbgpt generate --max-t", "--max-tokens"), ("nbgpt eval perpl", "perplexity")],
)
def test_bash(run, tmp_path, typed, expected):
    code, script, _ = run("completion", "bash")
    assert code == 0
    (tmp_path / "script").write_text(script)
    done = subprocess.run(["bash", "-c", COMPLETE, "bash", tmp_path / "script", typed], capture_output=True, text=True)
    assert expected in done.stdout.split()


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells(run, shell):
    code, script, _ = run("completion", shell)
    assert (code, "perplexity" in script) == (0, True)


def test_without_shtab(fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, line = fails("completion", "bash")
    assert (code, "nbgpt[completion]" in line) == (1, True)
