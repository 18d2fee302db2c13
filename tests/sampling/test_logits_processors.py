"""Penalties, bans and truncations against slow twins that follow the words of their sources."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbgpt.sampling import logits_processors as do
from nbgpt.sampling import portable

N_VOCAB = 9
texts = st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=30)
rows = st.lists(st.integers(-80, 80).map(lambda i: i / 8), min_size=N_VOCAB, max_size=N_VOCAB)
thorough = settings(max_examples=200, deadline=None)


def after(processor, text, scores, *arguments):
    """What a processor makes of scores, which it changes in place, after a text."""
    changed = np.array(scores, np.float32)
    assert processor(np.array(text, np.int32), changed, *arguments) is changed
    return changed


def same(found, expected):
    np.testing.assert_allclose(found, np.array(expected, np.float32), rtol=1e-6)


# Penalties and bans


def test_bias():
    bias = {3: 1.5, 0: -math.inf, 8: -2}
    same(after(do.add_bias, [], [1.0] * N_VOCAB, bias), [-math.inf, 1, 1, 2.5, 1, 1, 1, 1, -1])


@thorough
@given(scores=rows, text=texts, penalty=st.sampled_from([0.5, 1.2, 3]))
def test_repetition(scores, text, penalty):
    expected = [
        x if i not in text else x * penalty if x < 0 else x / penalty for i, x in enumerate(scores)
    ]  # once, however often a token was said
    same(after(do.penalize_repetition, text, scores, penalty), expected)


@thorough
@given(
    scores=rows,
    prompt=texts,
    new=texts | st.just([]),
    presence=st.sampled_from([-1, 0, 0.5]),
    frequency=st.sampled_from([0, 0.25]),
)
def test_presence_and_frequency(scores, prompt, new, presence, frequency):
    expected = [x - presence * (i in new) - frequency * new.count(i) for i, x in enumerate(scores)]
    found = after(do.penalize_presence_and_frequency, prompt + new, scores, len(prompt), presence, frequency)
    same(found, expected)


def dry_twin(scores, text, multiplier, base, allowed_length, breakers):
    """For each token that might come: the longest end of the text that was followed by it before."""
    scores = list(scores)
    for token in range(N_VOCAB):
        longest = 0
        for place in range(1, len(text)):
            n = 0
            while (
                n < place and text[place - 1 - n] == text[len(text) - 1 - n] and text[len(text) - 1 - n] not in breakers
            ):
                n += 1
            if text[place] == token and token not in breakers:
                longest = max(longest, n)
        if longest >= allowed_length:
            scores[token] -= multiplier * base ** (longest - allowed_length)
    return scores


@thorough
@given(
    scores=rows,
    text=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    allowed=st.integers(1, 4),
    breakers=st.frozensets(st.integers(0, 3), max_size=2),
)
def test_dry(scores, text, allowed, breakers):
    expected = dry_twin(scores, text, 0.8, 1.75, allowed, breakers)
    same(after(do.penalize_continuation, text, scores, 0.8, 1.75, allowed, breakers), expected)


def test_dry_by_hand():
    text = [1, 2, 3, 4, 5, 1, 2, 3]  # 4 would continue three tokens, which is one more than are free
    same(
        after(do.penalize_continuation, text, [0.0] * N_VOCAB, 0.8, 1.75, 2, frozenset()),
        [0, 0, 0, 0, -0.8 * 1.75, 0, 0, 0, 0],
    )


def test_dry_computes_a_penalty_once(monkeypatch):
    """`decimal` takes microseconds, and a text may have thousands of candidates: they have few lengths."""
    computed = []
    monkeypatch.setattr(do, "exp", lambda x: computed.append(x) or portable.exp(x))
    text = [token for i in range(1, 200) for token in (0, i)] + [0]
    scores = after(do.penalize_continuation, text, [0.0] * 200, 0.71, 1.31, 1, frozenset())
    assert len(set(scores[1:200])) == 1
    assert scores[1] == -np.float32(portable.exp(portable.log(0.71)))
    assert len(computed) == 1


@pytest.mark.parametrize("banned", [0, 7])
def test_typical_p_has_the_bits_of_the_entropy_alone(rng, banned):
    scores = (4 * rng.standard_normal(5003)).astype(np.float32)
    scores[:banned] = -np.inf
    order = np.abs(portable.log_softmax(scores) + np.float32(do.entropy(scores)))
    p = portable.softmax(scores)
    by_order = np.argsort(order, kind="stable")
    last = by_order[np.searchsorted(np.cumsum(p[by_order], dtype=np.float64), 0.8)]
    np.testing.assert_array_equal(do.keep_typical_p(scores, 0.8), order <= order[last])


def test_dry_stays_finite():
    scores = after(do.penalize_continuation, [1] * 3000, [0.0] * N_VOCAB, 1.0, 5.0, 2, frozenset())
    assert -math.inf < scores[1] < -1e29


@thorough
@given(scores=rows, text=st.lists(st.integers(0, 3), min_size=1, max_size=30), size=st.integers(1, 5))
def test_ngrams(scores, text, size):
    before = {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
    end = tuple(text[len(text) - size + 1 :]) if len(text) >= size - 1 else None
    expected = [-math.inf if end is not None and (*end, i) in before else x for i, x in enumerate(scores)]
    same(after(do.ban_repeated_ngrams, text, scores, size), expected)


@thorough
@given(scores=rows, text=texts, words=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple)))
def test_words(scores, text, words):
    banned = {word[-1] for word in words if [*word[:-1]] == text[max(0, len(text) - len(word) + 1) :]}
    expected = [-math.inf if i in banned else x for i, x in enumerate(scores)]
    same(after(do.BannedWords(words), text, scores), expected)


def test_ends():
    for n_ids, expected in ((2, [-math.inf, 0.5, -math.inf]), (3, [0.5] * 3)):
        same(after(do.ban_ends, [1] * n_ids, [0.5] * 3, 3, [0, 2]), expected)


# Truncations


def probabilities(scores):
    weights = [math.exp(x - max(scores)) for x in scores]
    return [weight / math.fsum(weights) for weight in weights]


def fewest(order, p, mass):
    """Ids in an order until they reach the mass; equals come together."""
    kept, total = set(), 0.0
    for i in sorted(range(len(p)), key=lambda i: order[i]):
        kept.add(i)
        total += p[i]
        if total >= mass:
            break
    last = max(order[i] for i in kept)
    return {i for i in range(len(p)) if order[i] <= last}


def kept(keep, scores, amount):
    mask = keep(np.array(scores, np.float32), amount)
    assert mask.dtype == bool
    return set(np.flatnonzero(mask).tolist())


@thorough
@given(scores=rows, k=st.integers(1, 12))
def test_top_k(scores, k):
    least = sorted(scores)[-min(k, N_VOCAB)]
    assert kept(do.keep_top_k, scores, k) == {i for i, x in enumerate(scores) if x >= least}


distinct = st.lists(st.integers(-80, 80), min_size=N_VOCAB, max_size=N_VOCAB, unique=True).map(
    lambda row: [i / 8 for i in row]
)
masses = st.integers(1, 99).map(lambda i: i / 100 + 0.00123)


@thorough
@given(scores=distinct, mass=masses)
def test_top_p(scores, mass):
    p = probabilities(scores)
    assert kept(do.keep_top_p, scores, mass) == fewest([-x for x in p], p, mass)


@thorough
@given(scores=distinct, mass=masses)
def test_typical_p(scores, mass):
    p = probabilities(scores)
    entropy = -sum(x * math.log(x) for x in p)
    order = [round(abs(-math.log(x) - entropy), 5) for x in p]  # nearer than that, rounding decides
    if len(set(order)) == len(order):
        assert kept(do.keep_typical_p, scores, mass) == fewest(order, p, mass)


@thorough
@given(scores=distinct, share=masses)
def test_min_p(scores, share):
    p = probabilities(scores)
    assert kept(do.keep_min_p, scores, share) == {i for i, x in enumerate(p) if x >= share * max(p)}


@thorough
@given(scores=distinct, epsilon=masses)
def test_epsilon_and_eta(scores, epsilon):
    p = probabilities(scores)
    assert kept(do.keep_epsilon, scores, epsilon) == {i for i, x in enumerate(p) if x >= epsilon or x == max(p)}
    eta = min(epsilon, math.sqrt(epsilon) * math.exp(sum(x * math.log(x) for x in p)))
    assert kept(do.keep_eta, scores, epsilon) == {i for i, x in enumerate(p) if x >= eta or x == max(p)}


@thorough
@given(scores=distinct, bits=st.floats(0.01, 12))
def test_unsurprising(scores, bits):
    p = probabilities(scores)
    assert kept(do.keep_unsurprising, scores, bits) == {
        i for i, x in enumerate(p) if -math.log2(x) <= bits or x == max(p)
    }


@pytest.mark.parametrize("spread", [0.01, 1, 4])
@pytest.mark.parametrize("mass", [0.1, 0.5, 0.9, 0.999])
def test_a_whole_vocabulary(rng, spread, mass):
    """Where few tokens are enough and where most of them are needed."""
    scores = (rng.standard_normal(50257) * spread).astype(np.float32)
    p = np.exp(np.float64(scores))
    p /= p.sum()
    for keep, order in (
        (do.keep_top_p, -p),
        (do.keep_typical_p, np.abs(-np.log(p) + (p * np.log(p)).sum())),
    ):
        total = p[keep(scores, mass)].sum()
        n_kept = np.count_nonzero(keep(scores, mass))
        first = np.argsort(order)
        n_expected = int(np.searchsorted(np.cumsum(p[first]), mass)) + 1
        assert total == pytest.approx(mass, abs=1e-3) or total >= mass
        assert abs(n_kept - n_expected) <= 1 + n_expected * 1e-3  # float32 may decide otherwise where many are near


def test_what_is_banned_has_no_part(rng):
    scores = rng.standard_normal(100).astype(np.float32)
    scores[::3] = -np.inf
    free = np.isfinite(scores)
    for keep, amount in ((do.keep_top_p, 0.7), (do.keep_typical_p, 0.7), (do.keep_eta, 0.01), (do.keep_epsilon, 0.01)):
        mask = keep(scores, amount)
        np.testing.assert_array_equal(mask[free], keep(scores[free], amount))
        assert not mask[~free].any()
