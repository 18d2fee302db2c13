import pytest

from nbgpt.batch.prompts import prompt_maker
from nbgpt.batch.row import ColumnError


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        ("Summarize: {text}", "Summarize: a {b}"),
        ("{text}{n}{text}", "a {b}3a {b}"),
        ("{{{two words}}} {list}", '{x} [1, "é"]'),
        ("nothing", "nothing"),
    ],
)
def test_fields(source, prompt):
    columns = {"text": "a {b}", "n": 3, "two words": "x", "list": [1, "é"], "none": None}
    assert prompt_maker(source, None)(columns) == prompt


@pytest.mark.parametrize("source", ["{", "}", "{text!r}", "{text:>9}", "{}", "{text"])
def test_what_is_no_text_with_fields(source):
    with pytest.raises(ValueError, match=r"^--prompt is .*; write {{ and }} for braces$"):
        prompt_maker(source, None)


@pytest.mark.parametrize("source", ["{text.__class__}", "{text[0]}", "{0}"])
def test_fields_are_names_of_columns_and_nothing_else(source):
    with pytest.raises(ColumnError, match="there is no column"):
        prompt_maker(source, None)({"text": "a"})
    assert prompt_maker(source, None)({source[1:-1]: "found"}) == "found"


def test_missing_columns():
    with pytest.raises(ColumnError, match="there is no column 'txet': there are 'text', 'n'"):
        prompt_maker("{txet}", None)({"text": "a", "n": 1})
    with pytest.raises(ValueError, match="column 'text' is null"):
        prompt_maker("{text}", None)({"text": None})


def test_the_column_if_nothing_is_said():
    make = prompt_maker(None, None)
    assert make({"prompt": "p", "text": "t"}) == "p"
    assert make({"text": "t"}) == "t"
    with pytest.raises(ColumnError, match=r"no column 'prompt' nor 'text', and no --prompt .* there are 'a'"):
        make({"a": 1})
    with pytest.raises(ValueError, match="column 'text' is 5; it must be a text"):
        make({"text": 5})


def test_jinja():
    pytest.importorskip("jinja2", reason="templates need jinja2")
    make = prompt_maker(None, "{% if n > 1 %}{{ text|upper }}{% endif %} {{ row }}{{ examples }}")
    assert make({"text": "a", "n": 3, "row": 5, "examples": "x", "self": 1}) == "A 5x"
    with pytest.raises(ColumnError, match="'n' is undefined"):
        make({"text": "a", "row": 5, "examples": "x"})
    with pytest.raises(ColumnError, match="'row' is undefined"):
        make({"text": "a", "n": 5})
    with pytest.raises(ColumnError, match="give the column 'self' another name"):
        prompt_maker(None, "{{ self }}")({"self": "a"})
    with pytest.raises(ColumnError, match="no attribute"):
        prompt_maker(None, "{{ text|dictsort }}")({"text": 5})
    with pytest.raises(ValueError, match="the template: line 1"):
        prompt_maker(None, "{% if")
    with pytest.raises(ValueError, match="choose one"):
        prompt_maker("a", "b")
