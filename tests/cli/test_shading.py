"""Pieces with their probabilities, beside the log-probabilities of the tokens."""

import math

import nbgpt
from nbgpt.cli.shading import with_probabilities


def test_pieces_have_the_probabilities_of_their_tokens():
    model = nbgpt.load()
    asked = {"max_tokens": 30, "seed": 1, "logprobs": 0}
    stream = model.stream("A café 😀", **asked)
    found = list(with_probabilities(stream))
    completion = model.generate("A café 😀", **asked)
    assert "".join(text for text, _ in found) == completion.text
    whole = [one for one in completion.logprobs if one.text]
    assert [text for text, _ in found] == [one.text for one in whole]
    if len(whole) == len(completion.logprobs):
        assert [p for _, p in found] == [math.exp(one.logprob) for one in whole]


def test_a_character_of_several_tokens_has_their_product():
    model = nbgpt.load()
    prefix = "日"
    ids = model.encode(prefix)
    assert len(ids) > 1
    stream = model.stream("A", prefix=prefix, max_tokens=len(ids) + 1, seed=1, logprobs=0)
    text, probability = next(with_probabilities(stream))
    score = model.score("A" + prefix)
    assert text == prefix
    assert math.isclose(math.log(probability), sum(score.logprobs[-len(ids) :]), rel_tol=1e-4)
