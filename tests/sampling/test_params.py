"""What a request may ask for: one line for each value that is not allowed."""

import pytest

from nbgpt.sampling.params import DrawParams, SamplingParams
from nbgpt.sampling.rng import uniform


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("temperature", value) for value in (-0.1, float("nan"), float("inf"), 2e9, 10**400)],
        *[("top_p", value) for value in (0, -1, 1.01, float("nan"))],
        *[("seed", value) for value in (-1, 2**64)],
        *[("top_k", value) for value in (-1, 2.5, 2**31, 10**400)],  # the last is more than a float64 can be
        *[("min_p", value) for value in (-0.1, 1.1, "0.5")],
        *[("typical_p", value) for value in (0, 1.1)],
        *[(name, value) for name in ("epsilon_cutoff", "eta_cutoff") for value in (-0.1, 1)],
        *[
            (name, value)
            for name in ("mirostat_tau", "mirostat_eta", "dry_multiplier")
            for value in (-1, float("inf"), 2e9)
        ],
        *[("repetition_penalty", value) for value in (0, -1, float("inf"), 1e-10, 2e9)],
        *[
            (f"{name}_penalty", value)
            for name in ("presence", "frequency")
            for value in (float("nan"), None, 2e9, -2e9)
        ],
        *[(name, value) for name in ("no_repeat_ngram_size", "min_tokens") for value in (-1, 1.5)],
        ("dry_base", 0.5),
        ("dry_allowed_length", 0),
        *[("max_tokens", value) for value in (0, 2.5, None)],
        *[("max_time", value) for value in (0, float("nan"), "1")],
        *[("sample", value) for value in (-1, 2**64, None)],
        ("logprobs", -1),
        ("echo", 1),
    ],
)
def test_a_number_out_of_range(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value!r}; it must be "):
        SamplingParams(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"logit_bias": {3: float("nan")}},
            r"logit_bias of token 3 is nan; it must be from -10\^9 to 10\^9, or -inf to",
        ),
        ({"logit_bias": {3: 10**400}}, "logit_bias of token 3 is 1000.*; it must be"),
        ({"logit_bias": {3: float("inf")}}, "logit_bias of token 3 is inf; it must be"),
        *[({"logit_bias": value}, "logit_bias is .*; it must be a mapping") for value in (None, [], 5, "x")],
        ({"min_tokens": 3, "max_tokens": 2}, "min_tokens is 3; it must be a whole number up to max_tokens, 2"),
        ({"prefix": (1, 2), "max_tokens": 2}, "tokens of prefix is 2; it must be a whole number below max_tokens, 2"),
        ({"overflow": "wrap"}, "overflow is 'wrap'; choose 'error', 'truncate_left', 'keep_first'"),
        ({"bad_words": ((1,), ())}, "bad_words has an empty one; each must have at least one token"),
        ({"logits_processors": (3,)}, "logits_processors has 3; each must be callable with ids and logits"),
    ],
)
def test_what_is_not_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingParams(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logit_bias": {61: 1.0}}, "logit_bias has token 61; it must be a whole number from 0 to 60"),
        ({"bad_words": ((1, 61),)}, "bad_words has token 61; it must be a whole number from 0 to 60"),
        ({"stop_ids": frozenset({61})}, "token in stop is 61; it must be a whole number from 0 to 60"),
        ({"logprobs": 62}, "logprobs is 62; it must be a whole number from 0 to 61"),
    ],
)
def test_what_the_vocabulary_lacks(options, message):
    params = SamplingParams(**options)
    params.check_vocabulary(62)
    with pytest.raises(ValueError, match=message):
        params.check_vocabulary(61)


@pytest.mark.parametrize("options", [{"logit_bias": {"a": 1.0}}, {"bad_words": ((1, -1),)}, {"stop_ids": {-1}}])
def test_what_is_no_token(options):
    with pytest.raises(ValueError, match=r"token.* it must be a whole number from 0 to 60"):
        SamplingParams(**options).check_vocabulary(61)


def test_a_draw_depends_on_seed_sample_and_position():
    assert SamplingParams(0.7, 3, 0.9, 4, sample=2).draw_params(5) == DrawParams(0.7, 3, 0.9, uniform(4, 2, 5))
    assert SamplingParams(0, seed=4).draw_params(5).uniform == 0  # greedy draws nothing


def test_positions_of_arguments():
    params = SamplingParams(3.0, 0, 0.5, 7)
    assert (params.temperature, params.top_k, params.top_p, params.seed) == (3.0, 0, 0.5, 7)
    with pytest.raises(TypeError, match="positional"):
        SamplingParams(3.0, 0, 0.5, 7, 0.1)
