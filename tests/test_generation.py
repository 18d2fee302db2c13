"""Ids in, ids out: reproducible, within the context, and leaving nothing behind."""

import gc
import threading

import numpy as np
import pytest
import reference
from folders import ballot
from models import config_of, open_model, random_params, write_native

from nbgpt.generation import Generation, Sampling
from nbgpt.kv_cache import Sequence
from nbgpt.model import GPT2

N_VOCAB, N_CTX = 61, 24
GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    config = config_of(n_vocab=N_VOCAB, n_ctx=N_CTX, tied_embeddings=False)  # tied, it would repeat what it reads
    return write_native(tmp_path_factory.mktemp("models") / "m.safetensors", random_params(config), config, "float32")


@pytest.fixture
def model(file):
    return open_model(file)


def generate(model, prompt, max_tokens, sampling=GREEDY, **options):
    return list(Generation(model, prompt, max_tokens, sampling, **options))


def next_greedy(model: GPT2, ids):
    """What follows ids, read from an empty cache."""
    return int(model.prefill(Sequence(), ids).argmax())


def test_greedy_takes_the_likeliest_of_the_uncached_logits(model):
    ids = [5, 6, 7]
    for token in generate(model, [5, 6, 7], 20):
        assert token == next_greedy(model, ids)
        ids.append(token)
    assert len(ids) == 23


def test_a_seed_gives_the_same_ids_on_any_number_of_threads(file):
    runs = [generate(open_model(file, n), [1, 2], 20, Sampling(3.0, 0, 1.0, seed=3)) for n in (1, 2, 3)]
    assert runs[0] == runs[1] == runs[2]
    assert len(set(runs[0])) > 10


def test_another_seed_or_sample_gives_other_ids(model):
    places = [(seed, sample) for seed in (0, 1, 2**64 - 1) for sample in (0, 1)]
    runs = [generate(model, [1], 20, Sampling(3.0, 0, 1.0, seed), sample=sample) for seed, sample in places]
    assert len({tuple(run) for run in runs}) == len(places)


def test_drawn_ids_have_the_models_distribution(tmp_path, rng):
    logits = rng.standard_normal(N_VOCAB).astype(np.float32) * 2
    path = write_native(tmp_path / "m.safetensors", *reversed(ballot(logits, n_layer=1, n_ctx=2000)), "float32")
    ids = generate(open_model(path), [0], 1999, Sampling(1.0, 0, 1.0, seed=1))
    expected = len(ids) * reference.softmax(np.float64(logits))
    common = expected > 5
    counts = np.bincount(ids, minlength=N_VOCAB)
    chi_square = ((counts - expected)[common] ** 2 / expected[common]).sum()
    assert abs(chi_square - common.sum()) < 4 * np.sqrt(2 * common.sum())


def test_the_end_of_text_ends_it(model):
    everything = generate(model, [4], 20)
    end = everything[7]
    generation = Generation(model, [4], 20, GREEDY, frozenset({end}))
    assert list(generation) == everything[: everything.index(end)]
    assert generation.finish_reason == "stop"
    assert generation.timing.new_tokens == everything.index(end) + 1


def test_max_tokens_end_it(model):
    generation = Generation(model, [4], 3, GREEDY)
    assert len(list(generation)) == 3
    assert generation.finish_reason == "length"
    assert (generation.timing.prompt_tokens, generation.timing.new_tokens) == (1, 3)
    assert generation.timing.prefill_speed > 0
    assert generation.timing.decode_speed > 0


def test_the_context_can_be_filled_to_the_last_position(model):
    assert len(generate(model, [1] * 20, 4)) == 4
    with pytest.raises(ValueError, match=r"prompt of 20 tokens and 5 new ones make 25; this model's context is 24"):
        generate(model, [1] * 20, 5)


@pytest.mark.parametrize("n_prompt", [1, 23, 24, 25, 100])
def test_truncate_left_goes_past_the_context(model, n_prompt):
    prompt = [i % N_VOCAB for i in range(n_prompt)]
    window = prompt[-N_CTX:]
    expected = []
    for _ in range(50):
        if len(window) > N_CTX:
            window = window[-N_CTX // 2 :]
        expected.append(next_greedy(model, window))
        window = [*window, expected[-1]]
    assert generate(model, prompt, 50, overflow="truncate_left") == expected


def test_a_context_of_one(tmp_path):
    config = config_of(n_ctx=1)
    model = open_model(write_native(tmp_path / "m.safetensors", random_params(config), config, "float32"))
    ids = generate(model, [3, 4], 5, overflow="truncate_left")
    assert ids == [next_greedy(model, [before]) for before in [4, *ids[:-1]]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": []}, "the prompt has no tokens"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be a whole number from 1 on"),
        ({"overflow": "wrap"}, "overflow is 'wrap'; choose 'error', 'truncate_left', 'keep_first'"),
    ],
)
def test_bad_requests(model, options, message):
    with pytest.raises(ValueError, match=message):
        Generation(**{"model": model, "prompt": [1], "max_tokens": 1, "sampling": GREEDY, **options})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("temperature", value) for value in (-0.1, float("nan"), float("inf"))],
        *[("top_p", value) for value in (0, -1, 1.01, float("nan"))],
        *[("seed", value) for value in (-1, 2**64)],
        *[("top_k", value) for value in (-1, 2**31, 10**400)],  # the last is more than a float64 can be
    ],
)
def test_bad_sampling(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value}; it must be "):
        Sampling(**{name: value})


def test_a_token_outside_of_the_vocabulary_frees_what_it_took(model):
    with pytest.raises(ValueError, match=r"token 61 is not in 0\.\.60"):
        generate(model, [1, 61], 3)
    assert model.cache.bytes_in_use == 0


def test_pages_are_given_back(model):
    generate(model, [1], 20)
    assert model.cache.bytes_in_use == 0
    ids = iter(Generation(model, [1], 20, GREEDY))
    next(ids)
    assert model.cache.bytes_in_use > 0
    del ids
    assert model.cache.bytes_in_use == 0


def test_what_was_abandoned_may_be_collected_in_the_middle_of_a_pass(model, monkeypatch):
    expected = generate(model, [1], 20)
    ids = iter(Generation(model, [1], 20, GREEDY))
    next(ids)
    cycle = [ids]
    cycle.append(cycle)
    del ids, cycle
    place = model._place

    def collect_and_place(*rows):
        gc.collect()
        return place(*rows)

    monkeypatch.setattr(model, "_place", collect_and_place)
    assert generate(model, [1], 20) == expected
    assert model.cache.bytes_in_use == 0


def test_python_threads_get_what_they_would_get_alone(file):
    model = open_model(file, n_threads=2)
    jobs = [([n, n + 1], Sampling(3.0, 0, 1.0, seed=n)) for n in range(6)]
    alone = [generate(model, prompt, 20, sampling) for prompt, sampling in jobs]
    together: list[list[int]] = [[] for _ in jobs]

    def work(n):
        prompt, sampling = jobs[n]
        together[n] = generate(model, prompt, 20, sampling)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
    assert model.cache.bytes_in_use == 0
