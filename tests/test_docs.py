"""The examples of the documentation, run."""

import doctest
from pathlib import Path

import pytest

import nbgpt.model
from nbgpt.text.options import Options

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


def test_the_page_names_every_option():
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in Options.__annotations__ if name not in text and not name.startswith("dry_")] == []
