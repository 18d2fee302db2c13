"""`eval perplexity`, against the function."""

import json
import re

import numpy as np
import pytest
from folders import TOKENIZER, ballot, write_text_model

import nbgpt
from nbgpt.analysis.curves import curves
from nbgpt.analysis.perplexity import perplexity
from nbgpt.analysis.plot import svg


@pytest.mark.parametrize("protocol", ["llama.cpp", "strided"])
def test_perplexity(run, tmp_path, chatter, protocol):
    text = " the and\r\n the the\n" * 100
    (tmp_path / "text.txt").write_bytes(text.encode())
    options = ["--model", chatter, "--protocol", protocol, "--window", 50]
    code, out, err = run("eval", "perplexity", tmp_path / "text.txt", *options)
    assert (code, err) == (0, "")
    model = nbgpt.load(chatter)
    ids, bos_id = TOKENIZER.encode(text), TOKENIZER.eos_id
    result = perplexity(model.engine, ids, protocol, 50, bos_id=bos_id, tokenizer=TOKENIZER)
    assert out == (
        "model           chatter float32\n"
        f"protocol        {protocol}\n"
        "window          50\n"
        f"stride          {50 if protocol == 'llama.cpp' else 25}\n"
        f"tokens scored   {result.n_scored}\n"
        f"NLL             {result.nll:.6f} nats a token\n"
        f"perplexity      {result.perplexity:.4f} +/- {result.standard_error:.4f}\n"
        f"bits per byte   {result.bits_per_byte:.4f}\n"
    )
    assert run("eval", "perplexity", "-", *options, stdin=text.encode())[1] == out
    without = run("eval", "perplexity", "-", *options, "--no-bos", stdin=text.encode())[1]
    assert without.count("\n") == out.count("\n")


def test_perplexity_of_too_little(fails, chatter, tmp_path):
    (tmp_path / "text.txt").write_text("short")
    code, line = fails("eval", "perplexity", tmp_path / "text.txt", "--model", chatter)
    assert code == 2
    assert re.fullmatch(r"the text has \d+ tokens; this needs at least 200: choose a longer one .*", line)


TEXT = b" the and\n the the\n" * 100


def test_json(run, chatter):
    options = ["--model", chatter, "--window", 50]
    code, out, _ = run("eval", "perplexity", "-", "--json", *options, stdin=TEXT)
    assert code == 0
    model = nbgpt.load(chatter)
    ids, bos_id = TOKENIZER.encode(TEXT.decode()), TOKENIZER.eos_id
    result = perplexity(model.engine, ids, window=50, bos_id=bos_id, tokenizer=TOKENIZER)
    assert json.loads(out) == {"model": "chatter", "dtype": "float32", **vars(result)}


def test_json_has_no_infinity(run, tmp_path):
    """A token that the model never expects: its perplexity is beyond float64."""
    logits = np.zeros(TOKENIZER.n_vocab, np.float32)
    logits[TOKENIZER.encode(" and")] = 1e4
    model = write_text_model(tmp_path / "m.safetensors", *ballot(logits))
    _, out, _ = run("eval", "perplexity", "-", "--json", "--model", model, "--window", 50, stdin=b" the" * 100)
    assert json.loads(out)["perplexity"] is None


def test_plot(run, chatter, tmp_path):
    output = tmp_path / "a.svg"
    output.write_text("older")
    code, out, err = run("eval", "perplexity", "-", "--model", chatter, "--window", 50, "--plot", output, stdin=TEXT)
    assert code == 0
    assert out.startswith("model ")
    assert err == f"nbgpt: loss by position and calibration are in {output}\n"
    model = nbgpt.load(chatter)
    expected = curves(model.engine, TOKENIZER.encode(TEXT.decode()), 50, TOKENIZER.eos_id)
    assert output.read_text() == svg(expected, "chatter float32")
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]


def test_a_plot_that_cannot_be_written(run, chatter, tmp_path):
    code, _, err = run("eval", "perplexity", "-", "--model", chatter, "--plot", tmp_path / "no/a.svg", stdin=TEXT)
    assert code == 1
    assert err == f"nbgpt: {tmp_path}/no/a.svg: No such file or directory\n"
