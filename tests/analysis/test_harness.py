"""The model for lm-evaluation-harness without that package; with it: tests/parity/test_harness.py."""

import importlib
import subprocess
import sys

import pytest


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.api.model", raising=False)
    monkeypatch.delitem(sys.modules, "nbgpt.analysis.harness", raising=False)
    with pytest.raises(ImportError, match=r'eval harness needs the package lm-eval: pip install "nbgpt\[harness\]"'):
        importlib.import_module("nbgpt.analysis.harness")


def test_nothing_else_imports_it():
    code = (
        "import sys, nbgpt.cli.main, nbgpt.analysis.measure, nbgpt.model; print({'lm_eval', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
