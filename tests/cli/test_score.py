"""`score`, against the methods of a model."""

import io
import json
import math
import sys

import pytest


@pytest.mark.parametrize("bos", [False, True])
def test_score(run_on_lines, lines, line_model, bos):
    scores = line_model.score_batch(lines, bos=bos)
    found = [line.split("\t") for line in run_on_lines("score", *["--bos"] * bos)]
    assert [line for _, _, line in found] == lines
    for (total, mean, _), score in zip(found, scores, strict=True):
        assert float(total) == pytest.approx(score.total, abs=1e-4)
        assert float(mean) == pytest.approx(score.mean, abs=1e-4, nan_ok=True)


def test_score_as_json(run_on_lines, lines, line_model):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    for line, text in zip(run_on_lines("score", "--json"), lines, strict=True):
        score = line_model.score(text)
        mean = None if math.isnan(score.mean) else score.mean
        parts = {"tokens": score.tokens, "texts": score.texts, "logprobs": score.logprobs}
        expected = {"text": text, "total": score.total, "mean": mean, **parts}
        assert json.loads(line, parse_constant=refuse) == expected


def test_standard_input(run_on_lines, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\r\n\ntwo")))
    assert [line.split("\t")[2] for line in run_on_lines("score", source="-")] == ["one", "", "two"]
