import ast
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nbgpt
from nbgpt.formats import FormatError
from nbgpt.strict_json import MAX_DEPTH, MAX_VALUES, SMALL_BYTES, parse, parse_object, read_object

TEXTS = st.text(st.sampled_from('a"\\{}[],:\n\x00é😀'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
@settings(max_examples=300)
def test_the_values_are_those_of_pythons_parser(value, ascii):
    assert parse(json.dumps(value, ensure_ascii=ascii), "here") == value


def deep(levels, kind):
    half, is_odd = divmod(levels, 2)
    return {
        "list": b"[" * levels + b"]" * levels,
        "object": b'{"a":' * levels + b"1" + b"}" * levels,
        "both": b'[{"a":' * half + (b"[]" if is_odd else b"1") + b"}]" * half,
    }[kind]


@pytest.mark.parametrize("kind", ["list", "object", "both"])
def test_depth(kind):
    value = parse(deep(MAX_DEPTH, kind), "here")
    depth = 0
    while value and value != 1:
        value, depth = next(iter(value.values() if isinstance(value, dict) else value)), depth + 1
    assert depth >= MAX_DEPTH - 1
    for levels in (MAX_DEPTH + 1, 10_000, 400_000):
        with pytest.raises(FormatError, match=f"^here: JSON nested more than {MAX_DEPTH} deep"):
            parse(deep(levels, kind), "here")


@pytest.mark.parametrize("data", [b"[" * 100_000, b"]" * 100_000, b'{"a":' * 100_000, b"[{" * 50_000 + b"]}" * 50_000])
def test_depth_without_an_end(data):
    with pytest.raises(FormatError, match=r"^here: JSON nested more than|^here: not valid JSON"):
        parse(data, "here")


def test_brackets_in_texts_are_no_depth():
    for text in ("[" * 1000, '\\"' * 500 + "{" * 500, "\\" * 999 + '"' + "[" * 300, "]" * 100 + "\\"):
        assert parse_object(json.dumps({"a": text, text: []}), "here") == {"a": text, text: []}


@pytest.mark.parametrize("unit", [b"[]", b"{}", b"0", b'""', b"[0]", b'"\\""'])
def test_number_of_values(unit):
    few = parse(b"[" + b",".join([unit] * 1000) + b"]", "here", 1 << 30)
    assert len(few) == 1000
    with pytest.raises(FormatError, match=f"^here: JSON of more than {MAX_VALUES} values"):
        parse(b"[" + b",".join([unit] * (MAX_VALUES + 2)) + b"]", "here", 1 << 30)


def test_text_may_have_commas():
    text = ", " * (MAX_VALUES + 1)
    assert parse_object(json.dumps({"text": text}), "here", 1 << 30) == {"text": text}


def test_quotes_that_never_end_take_no_time():
    for data in (b'"' * 9_000_001, b'"\\' * 4_000_001, b'\\"' * 4_000_001):
        with pytest.raises(FormatError, match=r"^here: "):
            parse(data, "here", 1 << 30)


def test_size(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_bytes(b"{}" + b" " * (SMALL_BYTES - 2))
    assert read_object(path) == {}
    with path.open("ab") as file:
        file.truncate(10 << 30)  # a hole
    with pytest.raises(FormatError, match=f"a.json: JSON of more than {SMALL_BYTES} bytes"):
        read_object(path)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands there twice"),
        (b"[" + b"9" * 5000 + b"]", "not valid JSON"),
        (b"[]", "expected a JSON object, found list"),
        ('{"a": "\ud800"}', "not valid JSON"),
    ],
)
def test_no_object(data, complaint):
    with pytest.raises(FormatError, match=f"^here: .*{complaint}"):
        parse_object(data, "here")


def test_the_last_of_many_keys_stands_there_twice():
    """In time that grows with their number, not with its square."""
    keys = [f'"{i}":0' for i in range(300_000)]
    with pytest.raises(FormatError, match="the key '7' stands there twice"):
        parse("{" + ",".join([*keys, keys[7]]) + "}", "here", 1 << 30)


OWN = {
    "strict_json.py": "the reader",
    "backend/compiler.py": "arguments that nbgpt gives to its own child",
    "batch/openai.py": "answers of nbgpt's own server",
    "batch/output.py": "what it has just written",
    "verification/machine.py": "a file of the package",
}


def test_nothing_else_reads_json():
    package = Path(nbgpt.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("load", "loads", "JSONDecoder"):
                module = node.value.id if isinstance(node.value, ast.Name) else ""
                if module in ("json", "orjson", "ujson", "simplejson"):
                    found.add(str(path.relative_to(package)))
            if isinstance(node, ast.ImportFrom) and node.module == "json":
                found.add(str(path.relative_to(package)))
    assert found == {*OWN}, "read JSON with nbgpt.strict_json: it has limits"
