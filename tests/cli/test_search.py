"""Beam and contrastive search as a user calls them, against the searches over ids."""

import json

import pytest

import nbgpt
from nbgpt.cli.main import main
from nbgpt.decoding.beam_search import beam_search
from nbgpt.decoding.contrastive_search import contrastive_search

PROMPT = "It was a dark and stormy night"


@pytest.fixture(scope="module")
def model():
    return nbgpt.load()


def test_beams_are_texts(model):
    found = model.beam_search(PROMPT, 3, max_tokens=8, num_return=2, length_penalty=0.5, early_stopping=True)
    ids, eos_id = model.encode(PROMPT), model.tokenizer.eos_id
    expected = beam_search(
        model.engine, ids, 3, 8, num_return=2, length_penalty=0.5, early_stopping=True, eos_ids={eos_id}
    )
    assert [(one.tokens, one.score, one.finish_reason) for one in found] == [
        (one.ids, one.score, one.finish_reason) for one in expected
    ]
    assert [str(one) for one in found] == [model.tokenizer.decode(one.ids) for one in expected]
    assert found[0].score > found[1].score


def test_one_beam_is_greedy(model):
    (found,) = model.beam_search(PROMPT, 1, max_tokens=12)
    assert found.tokens == model.generate(PROMPT, max_tokens=12, greedy=True).tokens


def test_contrastive_search_is_a_text(model):
    found = model.contrastive_search(PROMPT, alpha=0.5, k=5, max_tokens=10)
    expected = list(contrastive_search(model.engine, model.encode(PROMPT), 10, alpha=0.5, k=5))
    assert (found.tokens, found.text) == (expected, model.tokenizer.decode(expected))
    assert model.contrastive_search(PROMPT, alpha=0, max_tokens=10).tokens == (
        model.generate(PROMPT, max_tokens=10, greedy=True).tokens
    )


def test_the_command_line(model, capsys):
    best, second = model.beam_search(PROMPT, 2, max_tokens=6, num_return=2)
    arguments = ["generate", PROMPT, "--num-beams", "2", "--num-return", "2", "-n", "6"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{best}\n---\n{second}\n"
    assert main([*arguments, "--json", "--echo"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    ids = model.encode(PROMPT)
    assert first == {
        "text": PROMPT + best.text,
        "tokens": ids + best.tokens,
        "score": best.score,
        "finish_reason": "length",
        "usage": {"prompt_tokens": len(ids), "completion_tokens": 6, "total_tokens": len(ids) + 6},
    }
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["tokens"] == second.tokens
    assert main(["generate", PROMPT, "--penalty-alpha", "0.5", "--top-k", "3", "-n", "6"]) == 0
    assert capsys.readouterr().out == f"{model.contrastive_search(PROMPT, alpha=0.5, k=3, max_tokens=6)}\n"


def test_a_prompt_of_ids_and_names_of_special_tokens(model, capsys):
    ids = [*model.encode(PROMPT), model.tokenizer.eos_id]
    for prompt in (["--ids", " ".join(map(str, ids))], ["--special", f"{PROMPT}<|endoftext|>"]):
        assert main(["generate", *prompt, "--num-beams", "2", "-n", "4", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["tokens"] == model.beam_search(ids, 2, max_tokens=4)[0].tokens
        assert found["usage"]["prompt_tokens"] == len(ids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-beams", "0"], "num_beams is 0; it must be a whole number from 1 to 512"),
        (
            ["--num-beams", "2", "--num-return", "3"],
            "num_return is 3; it must be a whole number from 1 to num_beams, 2",
        ),
        (["--penalty-alpha", "1.5"], "alpha is 1.5; it must be from 0 to 1"),
        (["--num-beams", "2", "--temperature", "0.5"], "--temperature is given; a search has no use for it"),
        (["--num-beams", "2", "--penalty-alpha", "0.5"], "choose one"),
        (["--num-beams", "2", "--num-samples", "3"], "--num-samples is given; a search has no use for it"),
        (["--num-beams", "2", "--color"], "--color is given; a search has no use for it"),
        (["--num-beams", "2", "--top-k", "0"], "--top-k is given; a search has no use for it"),
        (["--penalty-alpha", "0.6", "--num-return", "3"], "--num-return is given without --num-beams"),
        (["--num-return", "3"], "--num-return is given without --num-beams, which alone has a use for it"),
        (["--length-penalty", "2"], "--length-penalty is given without --num-beams"),
        (["--early-stopping", "true"], "--early-stopping is given without --num-beams"),
    ],
)
def test_bad_values_are_one_line(capsys, arguments, message):
    assert main(["generate", PROMPT, *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
