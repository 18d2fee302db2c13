"""`eval`: its list of measures."""

import re
from pathlib import Path

import pytest

MEASURES = ["perplexity", "lambada", "choices", "hellaswag", "cbt", "compare", "harness"]


def test_the_list(run):
    code, out, _ = run("eval", "--help")
    assert code == 0
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("    ") and line[4] != " "]
    assert listed == MEASURES


@pytest.mark.parametrize("measure", MEASURES)
def test_each_has_help(run, measure):
    code, out, _ = run("eval", measure, "--help")
    assert code == 0
    assert out.startswith(f"usage: python -m nbgpt eval {measure} ")
    assert "--json" in out


def test_no_measure(fails):
    code, line = fails("eval")
    assert code == 2
    assert "MEASURE" in line


PAGE = Path(__file__).parents[2] / "docs" / "measures.md"


def test_the_page_shows_what_is_written(run, tmp_path, monkeypatch):
    """The commands of docs/measures.md whose output it shows, with the embedded model: the same bits on every CPU."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LICENSE").write_bytes((PAGE.parents[1] / "LICENSE").read_bytes())
    shown = []
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        for command, output in re.findall(r"^\$ (.*)\n((?:[^$\n].*\n)*)", block, re.MULTILINE):
            if command.startswith("cat "):
                (tmp_path / command[4:]).write_text(output, encoding="utf-8")
            elif output:
                assert run(*command.split()[3:]) == (0, output, "")
                shown.append(command.split()[4])
    assert shown == ["perplexity", "lambada"]
