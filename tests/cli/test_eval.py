"""`eval perplexity`, against the function."""

import re

import pytest
from folders import TOKENIZER

import nbgpt
from nbgpt.analysis.perplexity import perplexity


@pytest.mark.parametrize("protocol", ["llama.cpp", "strided"])
def test_perplexity(run, tmp_path, chatter, protocol):
    text = " the and\r\n the the\n" * 100
    (tmp_path / "text.txt").write_bytes(text.encode())
    options = ["--model", chatter, "--protocol", protocol, "--window", 50]
    code, out, err = run("eval", "perplexity", tmp_path / "text.txt", *options)
    assert (code, err) == (0, "")
    model = nbgpt.load(chatter)
    result = perplexity(model.engine, TOKENIZER.encode(text), protocol, 50, bos_id=TOKENIZER.eos_id)
    assert out == (
        "model           chatter float32\n"
        f"protocol        {protocol}\n"
        "window          50\n"
        f"stride          {50 if protocol == 'llama.cpp' else 25}\n"
        f"tokens scored   {result.n_scored}\n"
        f"NLL             {result.nll:.6f} nats a token\n"
        f"perplexity      {result.perplexity:.4f} +/- {result.standard_error:.4f}\n"
    )
    assert run("eval", "perplexity", "-", *options, stdin=text.encode())[1] == out
    without = run("eval", "perplexity", "-", *options, "--no-bos", stdin=text.encode())[1]
    assert without.count("\n") == out.count("\n")


def test_perplexity_of_too_little(fails, chatter, tmp_path):
    (tmp_path / "text.txt").write_text("short")
    code, line = fails("eval", "perplexity", tmp_path / "text.txt", "--model", chatter)
    assert code == 2
    assert re.fullmatch(r"the text has \d+ tokens; this needs at least 200: choose a longer one .*", line)
