"""The choice of an id: in which order, and with the exact distribution that options ask for."""

import math

import numpy as np
import pytest
import reference

from nbgpt.sampling.params import SamplingParams
from nbgpt.sampling.rng import uniform
from nbgpt.sampling.sampler import Sampler

NEUTRAL = {"temperature": 1.0, "top_k": 0}
LOGITS = np.array([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0], np.float32)
N_VOCAB = len(LOGITS)
TEXT = [0, 1, 2, 0, 1]  # of which the last two are new
N_PROMPT = 3


def sampler_of(ends=(), **options):
    return Sampler(SamplingParams(**{**NEUTRAL, "stop_ids": frozenset(ends), **options}), N_PROMPT)


def choose(sampler, logits=LOGITS, text=TEXT):
    return sampler.choose(np.array(text, np.int32), logits.copy())


def draws(n_draws, text=TEXT, **options):
    """How often each id is drawn after the text, over as many samples."""
    ids = [choose(sampler_of(sample=sample, **options), text=text) for sample in range(n_draws)]
    return np.bincount(ids, minlength=N_VOCAB)


def softmax(scores):
    return reference.softmax(np.array(scores, np.float64))


def only(p, kept):
    p = np.where(np.isin(np.arange(N_VOCAB), list(kept)), p, 0)
    return p / p.sum()


P = softmax(LOGITS)  # 0.42, 0.25, 0.15, 0.09, 0.06, 0.03, 0.02, 0.003
ENTROPY = -(P * np.log(P)).sum()

EXACT = {
    "nothing": ({"logits_processors": (lambda ids, logits: logits,)}, P),
    "temperature": ({"temperature": 0.5, "logit_bias": {7: 0.0}}, softmax(LOGITS / 0.5)),
    "top-k": ({"top_k": 3, "logit_bias": {7: 0.0}}, only(P, {0, 1, 2})),
    "top-p": ({"top_p": 0.7, "logit_bias": {7: 0.0}}, only(P, {0, 1, 2})),
    "min-p": ({"min_p": 0.2}, only(P, {0, 1, 2, 3})),
    "typical-p": ({"typical_p": 0.3}, only(P, {1, 2})),
    "epsilon": ({"epsilon_cutoff": 0.05}, only(P, {0, 1, 2, 3, 4})),
    "eta": ({"eta_cutoff": 0.1}, only(P, np.flatnonzero(min(0.1, 0.1**0.5 * math.exp(-ENTROPY)) <= P))),
    "mirostat": ({"mirostat_tau": 1.1}, only(P, {0, 1})),  # at first, what has at most 2.2 bits
    "repetition": ({"repetition_penalty": 2.0}, softmax([1.0, 0.75, 0.5, *LOGITS[3:]])),
    "presence": ({"presence_penalty": 1.0}, softmax([1.0, 0.5, *LOGITS[2:]])),
    "frequency": ({"frequency_penalty": -1.0}, softmax([3.0, 2.5, *LOGITS[2:]])),
    "n-gram": ({"no_repeat_ngram_size": 3}, only(P, {0, 1, 3, 4, 5, 6, 7})),
    "DRY": ({"dry_multiplier": 2.0}, softmax([2.0, 1.5, -1.0, *LOGITS[3:]])),
    "bias": ({"logit_bias": {7: 5.0, 0: -math.inf}}, softmax([-math.inf, *LOGITS[1:7], 2.0])),
    "bad words": ({"bad_words": ((3,), (1, 0), (0, 1, 2), (2, 4))}, only(P, {1, 4, 5, 6, 7})),
    "all of them in order": (
        {"temperature": 2.0, "top_k": 4, "top_p": 0.9, "repetition_penalty": 2.0, "logit_bias": {0: 4.0}},
        only(softmax(np.array([3.0, 0.75, 0.5, 0.5, 0, -0.5, -1, -3]) / 2), {0, 1, 2, 3}),
    ),
}


@pytest.mark.parametrize(("options", "p"), EXACT.values(), ids=EXACT)
def test_the_distribution_is_exact(options, p):
    """Chi-square over 3000 draws, on the way every draw takes."""
    n_draws = 3000
    counts = draws(n_draws, **options)
    assert counts[p == 0].sum() == 0
    common = n_draws * p > 5
    chi_square = ((counts - n_draws * p)[common] ** 2 / (n_draws * p)[common]).sum()
    freedom = max(1, common.sum() - 1)
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


def test_compiled_code_draws_where_it_can():
    position = 5
    params = SamplingParams(0.7, 3, 0.9, 4, sample=2, stop_ids=frozenset({1}))
    assert Sampler(params, N_PROMPT).is_plain(position)
    for name, value in {"min_p": 0.1, "repetition_penalty": 1.1, "logit_bias": {1: 1.0}, "mirostat_tau": 5.0}.items():
        assert not sampler_of(**{name: value}).is_plain(position)
    assert sampler_of(mirostat_eta=0.5, dry_base=2.0, dry_allowed_length=3).is_plain(
        position
    )  # these ask nothing alone


def test_min_tokens_ban_the_ends_until_then():
    sampler = sampler_of(ends={0, 1}, min_tokens=3, temperature=0.0)
    assert not sampler.is_plain(2)
    assert choose(sampler) == 2  # the third token
    assert sampler.is_plain(3)
    assert sampler_of(min_tokens=3).is_plain(2)  # nothing to ban


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0),
        ({"logit_bias": {5: 3.0}}, 5),
        ({"repetition_penalty": 5.0}, 3),
        ({"presence_penalty": 3.0}, 2),
        ({"frequency_penalty": 3.0}, 2),
        ({"no_repeat_ngram_size": 1}, 3),
        ({"bad_words": ((0,),)}, 1),
        ({"logits_processors": (lambda ids, logits: -logits,)}, 7),
        ({"typical_p": 0.1, "mirostat_tau": 5.0, "top_k": 1}, 0),  # truncations leave the largest
    ],
)
def test_greedy_heeds_penalties_and_bans(options, expected):
    assert choose(sampler_of(temperature=0.0, **options)) == expected


def test_processors_see_the_text_and_come_after_bans():
    seen = []

    def note(ids, logits):
        seen.append((ids.copy(), logits.copy()))
        ids[:], logits[2] = 7, 100.0  # both are its own
        return logits

    def check(ids, logits):
        assert ids.tolist() == TEXT
        assert logits[2] == 100
        return np.float64(logits)

    sampler = sampler_of(temperature=0.0, bad_words=((0,),), logits_processors=(note, check))
    assert choose(sampler) == 2
    ids, logits = seen[0]
    assert (ids.dtype, ids.tolist(), logits.dtype) == (np.int32, TEXT, np.float32)
    np.testing.assert_array_equal(logits, [-np.inf, *LOGITS[1:]])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bad_words": tuple((i,) for i in range(N_VOCAB))}, "every token is banned: check logit_bias, bad_words, "),
        ({"logits_processors": (lambda ids, logits: logits * np.nan,)}, "the largest logit is nan: check"),
        (
            {"logits_processors": (lambda ids, logits: logits[1:],)},
            r"returned shape \(7,\); it must return logits \[8\]",
        ),
        ({"logits_processors": (lambda ids, logits: None,)}, r"returned shape \(\); it must return logits \[8\]"),
    ],
)
def test_nothing_to_choose_from(temperature, options, message):
    with pytest.raises(ValueError, match=message):
        choose(sampler_of(temperature=temperature, **options))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [0, 1e-300, 1.0, 1e9])
@pytest.mark.parametrize(
    "options",
    [
        {"presence_penalty": 1e9, "frequency_penalty": 1e9, "repetition_penalty": 1e9, "logit_bias": {0: 1e9, 1: -1e9}},
        {"presence_penalty": -1e9, "frequency_penalty": -1e9, "repetition_penalty": 1e-9, "logit_bias": {2: -math.inf}},
        {"mirostat_tau": 1e9, "mirostat_eta": 1e9},
        {"mirostat_tau": 1e-9, "mirostat_eta": 1e9},
        {"dry_multiplier": 1e9, "dry_base": 1e9},
    ],
)
def test_the_largest_numbers_that_are_allowed(temperature, options):
    sampler = sampler_of(temperature=temperature, **options)
    for _ in range(3):
        assert 0 <= choose(sampler) < N_VOCAB


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1e-3])
def test_a_tiny_temperature_is_greedy(temperature):
    assert draws(20, temperature=temperature, min_p=0.5).tolist() == [20] + [0] * 7


def test_mirostat(rng):
    """The authors' algorithm in plain words, over a text of 200 tokens."""
    tau, eta = 3.0, 0.1
    sampler = sampler_of(mirostat_tau=tau, mirostat_eta=eta, seed=1)
    text, bound, surprisals = list(TEXT), 2 * tau, []
    for position in range(len(TEXT) - N_PROMPT, 200):
        logits = (2 * rng.standard_normal(300)).astype(np.float32)
        p = softmax(logits)
        kept = [i for i in range(300) if -math.log2(p[i]) <= bound] or [int(p.argmax())]
        among = p[kept] / p[kept].sum()
        goal, place = uniform(1, 0, position), 0
        while among[: place + 1].sum() <= goal:
            place += 1
        surprisals.append(-math.log2(among[place]))
        bound -= eta * (surprisals[-1] - tau)
        assert choose(sampler, logits, text) == kept[place]
        text.append(kept[place])
    assert np.mean(surprisals[50:]) == pytest.approx(tau, abs=0.3)  # it steers to tau
