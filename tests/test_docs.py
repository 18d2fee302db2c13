"""The examples of the documentation, run."""

import doctest
import runpy
from pathlib import Path

import pytest

import nbgpt.model
from nbgpt.text.options import OPTIONS

PAGE = Path(__file__).parent.parent / "docs" / "api.md"


def test_the_page_does_what_it_says():
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert tried > 20
    assert failed == 0


@pytest.mark.parametrize("module", [nbgpt.model], ids=lambda module: module.__name__)
def test_docstrings_do_what_they_say(module):
    failed, tried = doctest.testmod(module)
    assert tried > 0
    assert failed == 0


def test_the_page_has_the_options_as_they_are_declared():
    """If not: `python docs/options.py`."""
    text = PAGE.read_text(encoding="utf-8")
    rewritten = runpy.run_path(str(PAGE.with_name("options.py")))["rewritten"]
    assert rewritten(text) == text
    assert all(text.count(f"\n| `{name}` |") == 1 for name in OPTIONS)
