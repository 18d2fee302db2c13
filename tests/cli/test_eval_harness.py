"""`eval harness` without the package that it needs; with it: tests/parity/test_harness.py."""

import sys

import pytest

from nbgpt.cli.invocation import installation


@pytest.fixture(autouse=True)
def without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    for name in [name for name in sys.modules if name.startswith("lm_eval.") or name == "nbgpt.analysis.harness"]:
        monkeypatch.delitem(sys.modules, name)


def test_the_extra_is_named(fails, chatter):
    code, line = fails("eval", "harness", "--tasks", "lambada_openai", "--model", chatter)
    assert (code, line) == (1, f"eval harness needs the package lm-eval: {installation('nbgpt[harness]')}")


def test_tasks_are_needed(fails):
    code, line = fails("eval", "harness")
    assert code == 2
    assert "--tasks" in line
