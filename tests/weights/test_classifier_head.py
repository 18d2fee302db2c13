"""The file of a classifier's head: what goes in comes out, and what is damaged is refused before it is read."""

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from nbgpt.formats import FormatError
from nbgpt.weights import BaseReference, ClassifierHead, is_head, read_head, save_head

BASE = BaseReference("story", "int8", "../story-int8.safetensors", "f00d", True, "trained on 5 texts")


def head_of(n_labels=3, width=7, **fields):
    random = np.random.default_rng(0)
    arrays = random.standard_normal((n_labels + 3, width))
    named = {"labels": tuple(f"lábel {n}\n" for n in range(n_labels)), "multi_label": False, "layer": 2}
    named |= {"pooling": "mean", "mean": arrays[0], "scale": np.abs(arrays[1]) + 0.1, "coefficients": arrays[3:]}
    return ClassifierHead(**{**named, "intercept": random.standard_normal(n_labels), **fields})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "c.safetensors"
    save_head(path, head_of(), BASE, "moods")
    return path


def test_what_is_written_is_read(file):
    name, head, base = read_head(file)
    assert (name, base) == ("moods", BASE)
    for field, value in vars(head_of()).items():
        np.testing.assert_array_equal(getattr(head, field), value)
    stored = load_file(file)  # their reader
    np.testing.assert_array_equal(stored["coefficients"], head.coefficients)
    assert is_head(file)
    assert not is_head(file.with_name("other.safetensors"))


def test_logits(rng):
    head, features = head_of(), rng.standard_normal((5, 7)).astype(np.float32)
    expected = (features - head.mean) / head.scale @ head.coefficients.T + head.intercept
    np.testing.assert_allclose(head.logits(features), expected, rtol=1e-12)
    for row, one in zip(head.logits(features), features, strict=True):
        np.testing.assert_array_equal(head.logits(one[None])[0], row)
    assert head.logits(features[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ("a", "a", "b")}, "labels .* are not two names or more"),
        ({"labels": ("a", "b")}, "are not those of a classifier of 2 labels"),
        ({"pooling": "max"}, "pooling 'max', layer 2 cannot be"),
        ({"layer": "2"}, "layer '2' cannot be"),
        ({"multi_label": 1}, "cannot be"),
        ({"scale": np.zeros(7)}, "a scale is not above 0"),
        ({"mean": np.full(7, np.nan)}, "its numbers are not finite"),
        ({"scale": np.ones(6)}, "tensors .* are not those of a classifier of 3 labels"),
        ({"coefficients": np.ones((3, 8))}, "tensors .* are not those"),
        ({"intercept": np.ones(2)}, "tensors .* are not those"),
        ({"mean": np.ones((1, 7))}, "tensors .* are not those"),
    ],
    ids=str,
)
def test_heads_that_cannot_be(tmp_path, change, message):
    save_head(tmp_path / "c.safetensors", replace(head_of(), **change), BASE, "c")
    with pytest.raises(FormatError, match=rf"c\.safetensors: .*{message}.*: train it again"):
        read_head(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("version", "2"),
        ("format", "another"),
        ("labels", "no JSON"),
        ("labels", '{"a": 1}'),
        ("labels", "[1, 2, 3]"),
        ("head", "[]"),
        ("head", '{"layer": 2}'),
        ("head", '{"layer": 2, "pooling": ["mean"], "multi_label": false}'),
        ("base", "{}"),
        ("base", "[" * 100_000),
        ("base", json.dumps({**vars(BASE), "bos": "yes"})),
        ("base", json.dumps({**vars(BASE), "dtype": "int2"})),
        ("base", json.dumps({**vars(BASE), "dtype": "x/../../../y"})),
        ("base", json.dumps({**vars(BASE), "name": "a\0b"})),
        ("base", json.dumps({**vars(BASE), "path": 5})),
        ("base", json.dumps({**vars(BASE), "path": "a\0b"})),
        ("base", json.dumps({**vars(BASE), "more": 5})),
        (None, None),
    ],
)
def test_metadata_that_cannot_be(file, part, value):
    data = file.read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    if part is None:
        del header["__metadata__"]["head"]
    else:
        header["__metadata__"][part] = value
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + n :])
    with pytest.raises(FormatError, match="train it again"):
        read_head(file)


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 1 << 16), octet=st.integers(0, 255), cut=st.booleans())
def test_damage_is_an_error_or_another_number(tmp_path_factory, place, octet, cut):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_head(path, head_of(), BASE, "c")
    data = bytearray(path.read_bytes())
    place %= len(data)
    path.write_bytes(data[:place] if cut else data[:place] + bytes([octet]) + data[place + 1 :])
    with suppress(FormatError):
        _, head, _ = read_head(path)
        assert np.isfinite(head.logits(np.ones((1, 7), np.float32))).all()
