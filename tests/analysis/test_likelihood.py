"""Likelihoods of continuations: the bits of each pair read alone, and the reference in float64."""

import numpy as np
import pytest
import reference
from models import config_of, open_model, random_params, write_native

from nbgpt.analysis.likelihood import is_cut, likelihoods

N_CTX, N_VOCAB = 150, 61
CONFIG = config_of(n_ctx=N_CTX, n_vocab=N_VOCAB)
PARAMS = random_params(CONFIG)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_native(tmp_path_factory.mktemp("models") / "m.safetensors", PARAMS, CONFIG, "float32")


@pytest.fixture(scope="module")
def model(path):
    return open_model(path, n_threads=2)


def alone(model, context, continuation):
    """Each pair by itself: NLLs by the engine's own method, and the likeliest ids."""
    context = context[max(0, len(context) + len(continuation) - N_CTX - 1) :]
    ids = [*context, *continuation]
    rows = np.concatenate(list(model.logits(ids[:-1])))[len(context) - 1 :]
    return -model.nll(ids, len(context)), bool((rows.argmax(axis=1) == continuation).all())


def check(model, pairs):
    found = likelihoods(model, pairs)
    assert len(found) == len(pairs)
    for one, pair in zip(found, pairs, strict=True):
        logprobs, is_greedy = alone(model, *pair)
        np.testing.assert_array_equal(one.logprobs, logprobs)
        assert one.is_greedy == is_greedy
    assert model.kv_bytes_in_use == 0


@pytest.fixture
def some(rng):
    """Ids of a random text."""
    return lambda n: rng.integers(0, N_VOCAB, n).tolist()


def likeliest(model, context, n):
    """What greedy decoding writes after a context."""
    ids = list(context)
    for _ in range(n):
        ids.append(int(np.concatenate(list(model.logits(ids)))[-1].argmax()))
    return ids[len(context) :]


def test_against_the_reference(model, some):
    pairs = [(some(20), some(5)), (some(1), some(1)), (some(40), some(1))]
    for one, (context, continuation) in zip(likelihoods(model, pairs), pairs, strict=True):
        logits = reference.gpt2(np.array([*context, *continuation][:-1]), PARAMS, CONFIG)[len(context) - 1 :]
        expected = np.log(reference.softmax(logits))[np.arange(len(continuation)), continuation]
        np.testing.assert_allclose(one.logprobs, expected, rtol=0, atol=2e-4)
        assert one.total == pytest.approx(expected.sum(), abs=1e-3)
        assert one.mean == one.total / len(continuation)


def test_pairs_of_all_lengths_to_the_bit(model, some):
    check(model, [(some(n), some(m)) for n in (1, 2, 63, 64, 65, 130) for m in (1, 2, 19)])


def test_choices_after_one_context_to_the_bit(model, some):
    contexts = [some(n) for n in (1, 30, 64, 100)]
    pairs = [(context, some(n)) for context in contexts for n in (1, 1, 3, 7)]
    check(model, pairs[::2] + pairs[1::2])  # not beside each other


def test_more_pairs_than_a_pass_has_logits(model, some):
    context = some(20)
    check(model, [(context, some(1 + n % 3)) for n in range(300)])


def test_contexts_that_begin_alike_to_the_bit(model, some):
    """As few-shot prompts do: within a page, at its end, and beyond."""
    for n in (10, 40, 64, 100):
        shots = some(n)
        check(model, [([*shots, *some(m)], some(4)) for m in (1, 5, 20, 30) for _ in range(8)])


def test_what_greedy_decoding_writes(model, some):
    context = some(12)
    ids = likeliest(model, context, 4)
    wrong = [*ids[:3], (ids[3] + 1) % N_VOCAB]
    found = likelihoods(model, [(context, ids), (context, wrong), (context, ids[:1]), ([*context, ids[0]], ids[1:])])
    assert [one.is_greedy for one in found] == [True, False, True, True]


def test_a_long_context_loses_its_beginning(model, some):
    pairs = [(some(N_CTX), some(1)), (some(N_CTX), some(2)), (some(500), some(N_CTX - 5)), (some(9), some(N_CTX))]
    assert [is_cut(N_CTX, pair) for pair in pairs] == [False, True, True, True]
    check(model, pairs)
    last = pairs[1][0][1:], pairs[1][1]
    np.testing.assert_array_equal(likelihoods(model, pairs[1:2])[0].logprobs, likelihoods(model, [last])[0].logprobs)


def rows_read(model, pairs, monkeypatch):
    rows = []
    forward = model.runner.forward

    def count(ids, *arguments, **options):
        rows.append(len(ids))
        return forward(ids, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(model.runner, "forward", count)
        likelihoods(model, pairs)
    return sum(rows), len(rows)


def test_beginnings_are_read_once(model, some, monkeypatch):
    shots = some(100)
    pairs = [([*shots, n, *some(9)], [1, 2]) for n in range(40)]
    read, _ = rows_read(model, pairs, monkeypatch)
    assert read == 100 + 40 * 10 + 40
    context = some(90)
    assert rows_read(model, [(context, [n]) for n in range(50)], monkeypatch)[0] == 90


def test_passes_are_full(model, some, monkeypatch):
    pairs = [(some(64), some(1)) for _ in range(64)]
    read, passes = rows_read(model, pairs, monkeypatch)
    assert read == 64 * 64
    assert passes == 8  # of 512 rows


def test_a_small_cache_is_enough(path, some):
    """Of four pages of 64 positions, three of which a pair of this length may take at once."""
    roomy, n_pages = open_model(path), 4
    small = open_model(path, kv_memory=n_pages * roomy.cache.page_bytes)
    pairs = [(some(60 + n), some(4)) for n in range(10)] * 2
    for one, other in zip(likelihoods(small, pairs), likelihoods(roomy, pairs), strict=True):
        np.testing.assert_array_equal(one.logprobs, other.logprobs)


def test_progress(model, some):
    pairs, done = [(some(10), some(2)) for _ in range(200)], []
    likelihoods(model, pairs, done.append)
    assert sum(done) == 200
    assert len(done) > 1
    assert likelihoods(model, []) == []


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (([], [1]), "a context has no tokens; each needs at least one"),
        (([1], []), "a continuation has no tokens; each needs at least one"),
        (([1], [1] * (N_CTX + 1)), "a continuation has 151 tokens; this model's context is 150: shorten it"),
        (([1], [N_VOCAB, 1]), "token 61 is not in 0..60"),
    ],
)
def test_bad_pairs(model, pair, message):
    with pytest.raises(ValueError, match=message):
        likelihoods(model, [([1], [2]), pair])
