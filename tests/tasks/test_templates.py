"""Jinja templates in their sandbox."""

import sys

import pytest

from nbgpt.tasks.templates import TextTemplate


def test_values():
    template = TextTemplate("{% for one in many %}\n{{ one }};\n{% endfor %}\nend {{ last }}\n", "a template")
    assert template.render({"many": [1, "b"], "last": "z"}) == "1;\nb;\nend z"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ missing }}", "'missing' is undefined"),
        ("{{ 1 // 0 }}", "by zero"),
        ("{{ raise_exception('no') }}", "no"),
        ("{{ given.__class__.__mro__ }}", "__class__"),
        ("{{ given.append(1) }}", "append"),
        ("{{ 1|dictsort }}", "no attribute"),
        ("{% include '/etc/passwd' %}", "no loader"),
    ],
)
def test_what_a_template_may_not(source, message):
    given = []
    with pytest.raises(ValueError, match=f"^a template: .*{message}"):
        TextTemplate(source, "a template").render({"given": given})
    assert given == []


def test_no_template():
    with pytest.raises(ValueError, match=r"^a template: line 2: "):
        TextTemplate("one\n{% for %}", "a template")


def test_without_jinja(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r'pip install "nbgpt\[templates\]"'):
        TextTemplate("", "a template")
