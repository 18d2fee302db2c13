"""score and embed, the commands, against the methods of a model."""

import io
import json
import math
import sys

import numpy as np
import pytest
from folders import text_config, write_text_model
from models import random_params

import nbgpt
from nbgpt.cli.main import main

LINES = ["It was a dark and stormy night.", "", "a", "Naïve café 😀", *(f"number {n}" for n in range(100))]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    config = text_config()
    return write_text_model(tmp_path_factory.mktemp("models") / "m.safetensors", config, random_params(config))


@pytest.fixture(scope="module")
def model(file):
    return nbgpt.load(file)


@pytest.fixture
def run(file, tmp_path, capsys):
    """Runs a command on LINES -> the lines that it writes."""
    (tmp_path / "lines.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")

    def run(*arguments, source=tmp_path / "lines.txt"):
        assert main([*map(str, arguments), str(source), "--model", str(file)]) == 0
        out = capsys.readouterr().out
        assert out[-1:] in ("\n", "")
        return out.split("\n")[:-1]

    return run


@pytest.mark.parametrize("bos", [False, True])
def test_score(run, model, bos):
    scores = model.score_batch(LINES, bos=bos)
    found = [line.split("\t") for line in run("score", *["--bos"] * bos)]
    assert [line for _, _, line in found] == LINES
    for (total, mean, _), score in zip(found, scores, strict=True):
        assert float(total) == pytest.approx(score.total, abs=1e-4)
        assert float(mean) == pytest.approx(score.mean, abs=1e-4, nan_ok=True)


def test_score_as_json(run, model):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    for line, text in zip(run("score", "--json"), LINES, strict=True):
        score = model.score(text)
        mean = None if math.isnan(score.mean) else score.mean
        parts = {"tokens": score.tokens, "texts": score.texts, "logprobs": score.logprobs}
        expected = {"text": text, "total": score.total, "mean": mean, **parts}
        assert json.loads(line, parse_constant=refuse) == expected


@pytest.mark.parametrize("options", [(), ("--pooling", "last"), ("--no-normalize", "--bos")], ids=str)
def test_embed(run, model, options):
    records = [json.loads(line) for line in run("embed", *options)]
    assert [record["text"] for record in records] == LINES
    settings = {"pooling": "last" if "last" in options else "mean", "normalize": "--no-normalize" not in options}
    expected = model.embed(LINES, **settings, bos="--bos" in options)
    np.testing.assert_array_equal(np.array([record["embedding"] for record in records], np.float32), expected)


def test_standard_input(run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\r\n\ntwo")))
    assert [line.split("\t")[2] for line in run("score", source="-")] == ["one", "", "two"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run("embed", source="-") == []
