"""`embed`, against the method of a model."""

import io
import json
import sys

import numpy as np
import pytest


@pytest.mark.parametrize("options", [(), ("--pooling", "last"), ("--no-normalize", "--bos")], ids=str)
def test_embed(run_on_lines, lines, line_model, options):
    records = [json.loads(line) for line in run_on_lines("embed", *options)]
    assert [record["text"] for record in records] == lines
    settings = {"pooling": "last" if "last" in options else "mean", "normalize": "--no-normalize" not in options}
    expected = line_model.embed(lines, **settings, bos="--bos" in options)
    np.testing.assert_array_equal(np.array([record["embedding"] for record in records], np.float32), expected)


def test_an_empty_standard_input(run_on_lines, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run_on_lines("embed", source="-") == []
