"""Files of examples and the encoding of pairs, against lm-evaluation-harness' own steps written out."""

import json

import pytest
from folders import TOKENIZER

from nbgpt.analysis.examples import encode_apart, encode_pair, rows
from nbgpt.formats import FormatError


def encoded_by_the_harness(context, continuation):
    """lm_eval/api/model.py, TemplateLM._encode_pair, for causal models."""
    n_spaces = len(context) - len(context.rstrip())
    if n_spaces > 0:
        continuation = context[-n_spaces:] + continuation
        context = context[:-n_spaces]
    whole_enc = TOKENIZER.encode(context + continuation)
    context_enc = TOKENIZER.encode(context)
    return context_enc, whole_enc[len(context_enc) :]


PAIRS = [
    ("It was a dark", " night"),
    ("It was a dark ", "night"),
    ("It was a dark  \n ", "night"),
    ("It was a dar", "k night"),  # which the tokens do not respect
    ("Naïve café", " 😀 日本語"),
    ("a", "b"),
]


@pytest.mark.parametrize(("context", "continuation"), PAIRS)
def test_pairs(context, continuation):
    assert encode_pair(TOKENIZER, context, continuation) == encoded_by_the_harness(context, continuation)
    before, after = encode_pair(TOKENIZER, context, continuation, bos=True)
    assert before == [TOKENIZER.bos_id, *encoded_by_the_harness(context, continuation)[0]]
    assert after == encoded_by_the_harness(context, continuation)[1]


@pytest.mark.parametrize("encode", [encode_pair, encode_apart])
@pytest.mark.parametrize("context", ["", "  "])
def test_an_empty_context_is_the_token_that_begins_texts(encode, context):
    expected = [TOKENIZER.bos_id], TOKENIZER.encode(f"{context} night")
    assert encode(TOKENIZER, context, " night") == expected
    assert encode(TOKENIZER, context, " night", True) == expected


def test_texts_that_are_encoded_apart():
    context, continuation = "It was a dar", "k night"
    expected = TOKENIZER.encode(context), TOKENIZER.encode(continuation)
    assert encode_apart(TOKENIZER, context, continuation) == expected
    assert encode_apart(TOKENIZER, "It was ", "a") == (TOKENIZER.encode("It was"), TOKENIZER.encode(" a"))
    assert encode_apart(TOKENIZER, context, continuation, True)[0] == [TOKENIZER.bos_id, *expected[0]]


def test_rows():
    found = list(rows('{"text": "a\u2028b"}\r\n\n  \n{"text": "", "label": "1"}', "file"))
    assert [row.where for row in found] == ["file, line 1", "file, line 4"]
    assert found[0].text("text") == "a\u2028b"
    assert found[1].maybe_empty("text") == ""
    assert found[1].label("label", 2) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "file has no lines; wanted is a JSON object a line"),
        ("\n\n", "file has no lines"),
        ("[1]", "file, line 1: expected a JSON object, found list"),
        ("{", "file, line 1: not valid JSON"),
    ],
)
def test_files_that_are_no_jsonl(line, message):
    with pytest.raises(FormatError, match=message):
        list(rows(line, "file"))


FIELDS = {"text": "a", "empty": "", "texts": ["a", "b"], "label": 1, "number": 5, "flag": True, "null": None}


def row():
    return next(rows(json.dumps(FIELDS), "file"))


@pytest.mark.parametrize("name", ["empty", "texts", "number", "null"])
def test_what_is_no_text(name):
    message = rf"file, line 1: '{name}' is .*; wanted is a text that is not empty"
    with pytest.raises(FormatError, match=message):
        row().text(name)


def test_missing_fields():
    with pytest.raises(FormatError, match=r"file, line 1 has no 'context', but text, empty, .*; wanted is a text"):
        row().maybe_empty("context")
    with pytest.raises(FormatError, match="has no 'text', but no fields"):
        next(rows("{}", "file")).text("text")


@pytest.mark.parametrize("value", [[], ["a"], ["a", ""], ["a", " "], ["a", 1], "ab", None])
def test_what_is_no_list_of_texts(value):
    with pytest.raises(FormatError, match=r"'x' is .*; wanted is a list of at least two texts that are not empty"):
        next(rows(json.dumps({"x": value}), "file")).texts("x")


@pytest.mark.parametrize("value", [-1, 4, "4", "", "x", 1.0, True, None, [1], "01"])
def test_what_is_no_label(value):
    with pytest.raises(FormatError, match=r"'x' is .*; wanted is the number of the right one, 0 to 3"):
        next(rows(json.dumps({"x": value}), "file")).label("x", 4)


@pytest.mark.parametrize(("value", "number"), [(0, 0), (3, 3), ("0", 0), ("3", 3)])
def test_labels(value, number):
    assert next(rows(json.dumps({"x": value}), "file")).label("x", 4) == number
