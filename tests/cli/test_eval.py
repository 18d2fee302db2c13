"""`eval`: its list of measures."""

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
