"""What benchmarks share: choices that are scored, counted and averaged."""

import math

import numpy as np
import pytest
from folders import TOKENIZER
from protocols import encode, log_likelihood

from nbgpt.analysis.estimate import mean_of
from nbgpt.analysis.examples import Example
from nbgpt.analysis.likelihood import Likelihood
from nbgpt.analysis.measure import Measure, accuracies_by_characters, accuracies_by_tokens, accuracy, sums

EXAMPLES = [
    Example("It was a dark ", ("night.", "day"), 0),
    Example("", ("The end", "It was", "Once"), 2),
    Example("word " * 200, ("and the other", "a"), 1),  # too long
]


def likelihoods_of(*means):
    return [Likelihood(np.full(n, mean), False) for mean, n in means]


@pytest.fixture
def measure():
    """Returns what it was given, to look at."""
    seen = []

    def estimates(examples, found):
        seen.extend(found)
        return {"n": mean_of(np.array([len(choices) for choices in found]))}

    return Measure("protocol", lambda text, where: EXAMPLES, estimates), seen


def test_choices_are_scored_in_their_order(protocol_model, measure):
    measure, seen = measure
    done = []
    model = protocol_model
    result = measure.run(model.engine, model.tokenizer, EXAMPLES, progress=lambda n, total: done.append((n, total)))
    assert (result.protocol, result.n, result.n_truncated) == ("protocol", 3, 1)
    assert result.estimates["n"].value == pytest.approx(7 / 3)
    assert done[-1] == (7, 7)
    for example, found in zip(EXAMPLES, seen, strict=True):
        for choice, one in zip(example.choices, found, strict=True):
            before, after = encode(example.context, choice)
            total, is_greedy = log_likelihood(before or [TOKENIZER.bos_id], after)
            assert one.total == pytest.approx(total, abs=1e-3)
            assert one.is_greedy == is_greedy


def test_bos(protocol_model, measure):
    measure, seen = measure
    measure.run(protocol_model.engine, protocol_model.tokenizer, EXAMPLES[:1], bos=True)
    before, after = encode("It was a dark ", "night.")
    assert seen[0][0].total == pytest.approx(log_likelihood([TOKENIZER.bos_id, *before], after)[0], abs=1e-3)


def test_no_examples(protocol_model, measure):
    with pytest.raises(ValueError, match="examples is empty; give at least one"):
        measure[0].run(protocol_model.engine, protocol_model.tokenizer, [])


def test_a_choice_that_is_too_long(protocol_model, measure):
    examples = [Example("It was ", ("a" * 500,))]
    with pytest.raises(ValueError, match=r"a continuation has \d+ tokens; this model's context is 100: shorten it"):
        measure[0].run(protocol_model.engine, protocol_model.tokenizer, examples)


def test_accuracies():
    """The sum prefers short choices; characters and tokens normalize differently."""
    examples = [Example("", ("abcdefghij", "a"), 0)] * 2 + [Example("", ("abcdefghij", "a"), 1)]
    found = [
        likelihoods_of((-1.0, 4), (-3.0, 1)),
        likelihoods_of((-2.0, 4), (-1.5, 1)),
        likelihoods_of((-2, 4), (-1, 1)),
    ]
    assert sums(found) == [[-4, -3], [-8, -1.5], [-8, -1]]
    # by the sum the second is chosen each time; by characters the first; by tokens first, second, second
    error = math.sqrt(2 / 9 / 2)
    by_characters, by_tokens = accuracies_by_characters(examples, found), accuracies_by_tokens(examples, found)
    for one in (by_characters, by_tokens):
        assert one["acc"].value == pytest.approx(1 / 3)
        assert one["acc"].standard_error == pytest.approx(error)
    assert by_characters["acc_norm"].value == pytest.approx(2 / 3)
    assert by_tokens["acc_norm"].value == pytest.approx(2 / 3)
    assert accuracies_by_tokens(examples[:2], found[:2])["acc_norm"].value == 0.5
    assert accuracies_by_characters(examples[:2], found[:2])["acc_norm"].value == 1


def test_the_first_of_equal_choices():
    assert accuracy([Example("", ("a", "b"), 0)], [[-1.0, -1.0]]).value == 1
