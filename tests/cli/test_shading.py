"""Pieces with their probabilities, beside the log-probabilities of the tokens."""

import math

import pytest
from folders import RECITED

import nbgpt
from nbgpt.cli.shading import with_probabilities


def test_pieces_have_the_probabilities_of_their_tokens(chatter):
    with nbgpt.load(chatter) as model:
        asked = {"max_tokens": 30, "seed": 1, "logprobs": 0}
        found = list(with_probabilities(model.stream("A", **asked)))
        expected = [(one.text, math.exp(one.logprob)) for one in model.generate("A", **asked).logprobs]
    assert found == expected
    assert len({probability for _, probability in found}) > 1


def test_a_character_of_several_tokens_has_their_product(recital):
    with nbgpt.load(recital) as model:
        found = list(with_probabilities(model.stream("", max_tokens=100, temperature=2.0, seed=1, logprobs=0)))
        logprobs = model.generate("", max_tokens=100, temperature=2.0, seed=1, logprobs=0).logprobs
    expected, product = [], 1.0
    for one in logprobs:
        product *= math.exp(one.logprob)
        if one.text:
            expected.append((one.text, pytest.approx(product)))
            product = 1.0
    assert found == expected
    assert len(expected) < len(logprobs) - 1  # some characters have several tokens
    assert "".join(text for text, _ in found) == RECITED
