"""Ids in, ids out: reproducible, within the context, and leaving nothing behind."""

import gc
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import reference
from folders import ballot
from models import config_of, generate, open_model, random_params, request_of, run, write_native

from nbgpt.engine.engine import Engine
from nbgpt.engine.kv_cache import Sequence
from nbgpt.sampling.logprobs import measure
from nbgpt.sampling.params import SamplingParams

N_VOCAB, N_CTX = 61, 24
GREEDY = SamplingParams(temperature=0)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    config = config_of(n_vocab=N_VOCAB, n_ctx=N_CTX, tied_embeddings=False)  # tied, it would repeat what it reads
    return write_native(tmp_path_factory.mktemp("models") / "m.safetensors", random_params(config), config, "float32")


@pytest.fixture
def model(file):
    return open_model(file)


def next_greedy(model: Engine, ids):
    """What follows ids, read from an empty cache."""
    return int(model.runner.append(Sequence(), ids).argmax())


def test_greedy_takes_the_likeliest_of_the_uncached_logits(model):
    ids = [5, 6, 7]
    for token in generate(model, [5, 6, 7], 20, GREEDY):
        assert token == next_greedy(model, ids)
        ids.append(token)
    assert len(ids) == 23


def test_a_seed_gives_the_same_ids_on_any_number_of_threads(file):
    runs = [generate(open_model(file, n), [1, 2], 20, SamplingParams(3.0, 0, 1.0, seed=3)) for n in (1, 2, 3)]
    assert runs[0] == runs[1] == runs[2]
    assert len(set(runs[0])) > 10


@pytest.mark.parametrize("options", [{}, {"top_k": 9, "top_p": 0.8}, {"min_p": 0.02, "repetition_penalty": 1.3}])
def test_cached_or_not_a_seed_gives_the_same_ids(file, options):
    """Each token again from an empty cache, on another number of threads."""
    sampling = SamplingParams(**{"temperature": 3.0, "top_k": 0, "seed": 7, **options})
    cached = generate(open_model(file, 1), [1, 2], 20, sampling)
    model, uncached = open_model(file, 2), []
    for n in range(20):
        prefix = uncached[:n]
        uncached = generate(model, [1, 2], n + 1, sampling, prefix=prefix)
    assert uncached == cached


def test_another_seed_or_sample_gives_other_ids(model):
    places = [(seed, sample) for seed in (0, 1, 2**64 - 1) for sample in (0, 1)]
    runs = [generate(model, [1], 20, SamplingParams(3.0, 0, 1.0, seed), sample=sample) for seed, sample in places]
    assert len({tuple(run) for run in runs}) == len(places)


def test_drawn_ids_have_the_models_distribution(tmp_path, rng):
    logits = rng.standard_normal(N_VOCAB).astype(np.float32) * 2
    path = write_native(tmp_path / "m.safetensors", *reversed(ballot(logits, n_layer=1, n_ctx=2000)), "float32")
    ids = generate(open_model(path), [0], 1999, SamplingParams(1.0, 0, 1.0, seed=1))
    expected = len(ids) * reference.softmax(np.float64(logits))
    common = expected > 5
    counts = np.bincount(ids, minlength=N_VOCAB)
    chi_square = ((counts - expected)[common] ** 2 / expected[common]).sum()
    assert abs(chi_square - common.sum()) < 4 * np.sqrt(2 * common.sum())


def test_the_end_of_text_ends_it(model):
    everything = generate(model, [4], 20, GREEDY)
    end = everything[7]
    request = request_of(model, [4], 20, GREEDY, stop_ids=frozenset({end}))
    assert list(model.tokens(request)) == everything[: everything.index(end)]
    assert request.finish_reason == "stop"
    assert request.timing.new_tokens == everything.index(end) + 1


def test_max_tokens_end_it(model):
    request = request_of(model, [4], 3, GREEDY)
    assert len(list(model.tokens(request))) == 3
    assert request.finish_reason == "length"
    assert (request.timing.prompt_tokens, request.timing.new_tokens) == (1, 3)
    assert request.timing.prefill_speed > 0
    assert request.timing.decode_speed > 0


def test_the_context_can_be_filled_to_the_last_position(model):
    assert len(generate(model, [1] * 20, 5, GREEDY)) == 5
    assert generate(model, [1] * 24, 1, GREEDY) == [next_greedy(model, [1] * 24)]
    refusal = r"prompt of 20 tokens and 6 new ones need 25 positions; this model's context is 24"
    with pytest.raises(ValueError, match=refusal):
        generate(model, [1] * 20, 6, GREEDY)


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


@pytest.mark.parametrize("n_prompt", [1, 5, 12, 13, 24, 30])
def test_keep_first_keeps_the_beginning(model, n_prompt):
    """The whole prompt if it is at most half of the context, else a quarter of the context; then the later half."""
    prompt = [i % N_VOCAB for i in range(n_prompt)]
    n_keep = n_prompt if n_prompt <= N_CTX // 2 else N_CTX // 4
    window = prompt if n_prompt <= N_CTX else prompt[:n_keep] + prompt[-(N_CTX - n_keep) :]
    expected = []
    for _ in range(60):
        if len(window) > N_CTX:
            window = window[:n_keep] + window[-((N_CTX - n_keep) // 2) :]
        expected.append(next_greedy(model, window))
        window = [*window, expected[-1]]
    assert generate(model, prompt, 60, overflow="keep_first") == expected


@pytest.mark.parametrize("overflow", ["truncate_left", "keep_first"])
@pytest.mark.parametrize("n_ctx", [1, 2, 3])
def test_the_smallest_contexts(tmp_path, n_ctx, overflow):
    config = config_of(n_ctx=n_ctx)
    model = open_model(write_native(tmp_path / "m.safetensors", random_params(config), config, "float32"))
    assert len(generate(model, [3, 4, 5], 9, overflow=overflow)) == 9


# Many at once

WILD = SamplingParams(3.0, 0, 1.0, seed=5)
JOBS = [
    {"prompt": [1], "max_tokens": 20},
    {"prompt": [1, 2, 3, 4, 5, 6, 7, 8], "max_tokens": 16, "sample": 3},
    {"prompt": [9] * 23, "max_tokens": 1},
    {"prompt": [4, 4], "max_tokens": 40, "overflow": "truncate_left"},
    {"prompt": [4, 5], "max_tokens": 40, "overflow": "keep_first", "params": GREEDY},
    {"prompt": [7, 1], "max_tokens": 9, "params": SamplingParams(3.0, 0, min_p=0.01, repetition_penalty=1.2, seed=1)},
    {"prompt": [7, 1], "max_tokens": 9, "params": SamplingParams(3.0, 0, mirostat_tau=3.0, seed=1)},
    {"prompt": [5], "max_tokens": 20, "stop_ids": frozenset(range(0, N_VOCAB, 7))},
    {"prompt": [5, 6], "max_tokens": 12, "prefix": [50, 51, 52], "logprobs": 2, "echo": True},
    {"prompt": [8], "max_tokens": 12, "logprobs": 3},
]


def made_of(model, jobs):
    return [request_of(model, **{"params": WILD, **job}) for job in jobs]


def outcome(request):
    return request.tokens, request.finish_reason, request.measured, request.timing.new_tokens


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_batch_is_what_each_is_alone(file, batch_size, n_threads):
    """Bit by bit: log-probabilities too."""
    other, model = open_model(file, 3 - n_threads), open_model(file, n_threads)
    alone = made_of(other, JOBS)
    for request in alone:
        list(other.tokens(request))
    together = made_of(model, JOBS)
    largest = max(len(growing) for growing in run(model, together, batch_size))
    assert largest == min(batch_size, len(JOBS))
    assert [outcome(one) for one in together] == [outcome(one) for one in alone]
    assert {one.finish_reason for one in together} == {"length", "stop"}
    assert model.kv_bytes_in_use == 0


def count_rows(model, monkeypatch):
    """A list of the numbers of rows of each pass from now on."""
    forward, grow, rows = model.runner.forward, model.runner.decode_steps, []

    def growing(sequences, ids, options):
        rows.extend([len(ids)] * len(options))
        return grow(sequences, ids, options)

    monkeypatch.setattr(model.runner, "forward", lambda ids, *rest: rows.append(len(ids)) or forward(ids, *rest))
    monkeypatch.setattr(model.runner, "decode_steps", growing)
    return rows


def test_multi_step_decode_is_single_steps(model, monkeypatch):
    """However many tokens a call makes: the same ids, the same end, and no page is kept."""
    jobs = [{"prompt": [1, 2, 3], "max_tokens": 20, "sample": n, "stop_ids": frozenset({5})} for n in range(4)]
    multi_step = made_of(model, jobs)
    assert all(run(model, multi_step))
    monkeypatch.setattr("nbgpt.engine.request.CALL_SECONDS", 0.0)
    single = made_of(model, jobs)
    assert all(run(model, single))
    for several, one in zip(multi_step, single, strict=True):
        assert (several.tokens, several.finish_reason) == (one.tokens, one.finish_reason)
        assert several.timing.new_tokens == one.timing.new_tokens
    assert model.kv_bytes_in_use == 0


@pytest.mark.parametrize("batch_size", [2, 16])
def test_samples_of_a_prompt_share_its_prefill(model, monkeypatch, batch_size):
    prompt = list(range(20))
    jobs = [{"prompt": prompt, "max_tokens": 4, "sample": n} for n in range(5)]
    alone = [generate(model, prompt, 4, WILD, sample=n) for n in range(5)]
    model.scheduler.prefix_cache.clear()
    rows = count_rows(model, monkeypatch)
    together = made_of(model, jobs)
    assert all(run(model, together, batch_size))
    assert [one.tokens for one in together] == alone
    assert sum(rows) == 19 + 5 * 4
    assert model.kv_bytes_in_use == 0


def test_neighbours_that_begin_alike_share_their_beginning(model, monkeypatch):
    prompts = [[*range(18), 1, 2], [*range(18), 3], [*range(18), 1, 9], [*range(17), 60, 8], [1, 2]]
    alone = [generate(model, prompt, 3, GREEDY) for prompt in prompts]
    model.scheduler.prefix_cache.clear()
    rows = count_rows(model, monkeypatch)
    together = made_of(model, [{"prompt": prompt, "max_tokens": 3, "params": GREEDY} for prompt in prompts])
    assert all(run(model, together))
    assert [one.tokens for one in together] == alone
    assert sum(rows) == 20 + 1 + 1 + 2 + 2 + 2 * len(prompts)
    assert model.kv_bytes_in_use == 0


def test_more_rows_than_a_pass_has_room_for(file):
    """Prompts that are measured want logits of every row, in several passes."""
    config = config_of(n_vocab=N_VOCAB, n_ctx=600)
    model = open_model(write_native(file.with_name("long.safetensors"), random_params(config), config, "float32"))
    prompts = [[(i * k) % N_VOCAB for i in range(590)] for k in (3, 5)]
    jobs = [{"prompt": prompt, "max_tokens": 3, "logprobs": 1, "echo": True} for prompt in prompts]
    together = made_of(model, jobs)
    assert all(run(model, together))
    for one, prompt in zip(together, prompts, strict=True):
        assert one.tokens == generate(model, prompt, 3, WILD)
        nll = model.nll([*prompt, *one.tokens])
        np.testing.assert_allclose([-m.logprob for m in one.measured[1:]], nll, atol=1e-4)


def test_what_goes_wrong_in_one_frees_all(model):
    def fail(ids, logits):
        raise ZeroDivisionError

    jobs = [{"prompt": [1, 2], "max_tokens": 5}, {"prompt": list(range(20)), "max_tokens": 2}]
    bad = {"prompt": list(range(20)), "max_tokens": 2, "params": SamplingParams(logits_processors=(fail,))}
    with pytest.raises(ZeroDivisionError):
        list(run(model, made_of(model, [*jobs, bad])))
    assert model.kv_bytes_in_use == 0


# What is measured, forced and forbidden


def test_logprobs_are_those_of_the_logits(model):
    prompt, prefix = [3, 4, 5], [7, 8]
    ids = list(generate(model, prompt, 9, WILD, prefix=prefix))
    text = [*prompt, *ids]
    logits = np.concatenate([part.copy() for part in model.logits(text)])
    for echo in (False, True):
        request = request_of(model, prompt, 9, WILD, prefix=prefix, logprobs=3, echo=echo)
        assert list(model.tokens(request)) == ids
        expected = [(text[i], measure(logits[i - 1], text[i], 3)) for i in range(1 if echo else 3, len(text))]
        found = request.measured
        if echo:
            assert (found[0].token, found[0].logprob, found[0].top) == (3, None, {})
            found = found[1:]
        assert [(one.token, one) for one in found] == expected


@pytest.mark.parametrize(("overflow", "n_keep"), [("truncate_left", 0), ("keep_first", 6)])
@pytest.mark.parametrize("prefix", [[], [1, 2]])
def test_what_was_not_read_is_not_measured(model, overflow, n_keep, prefix):
    """Of a prompt of 40 the context has room for 24; the first of its contiguous end has nothing before it."""
    prompt = [i % N_VOCAB for i in range(40)]
    request = request_of(model, prompt, 4, GREEDY, overflow=overflow, prefix=prefix, logprobs=0, echo=True)
    tokens = list(model.tokens(request))
    assert [one.token for one in request.measured] == [*prompt, *tokens]
    n_unread = 40 + len(prefix) - (N_CTX - n_keep)
    missing = [one.logprob is None for one in request.measured]
    assert missing == [True] * (n_unread + 1) + [False] * (40 + 4 - n_unread - 1)


def test_a_prefix_counts_as_chosen(model):
    plain = generate(model, [4], 10, GREEDY)
    assert generate(model, [4], 10, prefix=plain[:4]) == plain
    forced = generate(model, [4], 10, prefix=[50, 51])
    assert forced[:2] == [50, 51]
    assert forced[2:] == generate(model, [4, 50, 51], 8, GREEDY)
    sampled = generate(model, [4], 10, WILD, prefix=[50, 51])
    assert sampled[2:] != generate(model, [4, 50, 51], 8, WILD)  # other numbers are drawn for the third token


def test_min_tokens(model):
    free = generate(model, [4], 20, GREEDY)
    ends = frozenset(free[2:4])
    assert generate(model, [4], 20, stop_ids=ends) == free[: min(map(free.index, ends))]
    held = generate(model, [4], 20, SamplingParams(0, min_tokens=10), stop_ids=ends)
    assert len(held) >= 10
    assert not ends & set(held)


def test_a_processor_that_does_nothing_changes_nothing(model):
    """What compiled code draws and what NumPy draws are the same ids."""
    drawn = (SamplingParams(3.0, 0, 1.0, 1), SamplingParams(2.0, 20, 1.0, 2), SamplingParams(2.0, 30, 0.7, 3))
    for sampling in (*drawn, GREEDY):
        slow = replace(sampling, logits_processors=(lambda ids, logits: logits,))
        assert generate(model, [1, 2], 20, slow) == generate(model, [1, 2], 20, sampling)


# Ends


def test_a_time_limit(model):
    request = request_of(model, [1], 10**6, GREEDY, overflow="truncate_left", max_time=0.2)
    start = time.perf_counter()
    tokens = list(model.tokens(request))
    assert 0.2 <= time.perf_counter() - start < 2
    assert (len(tokens) > 5, request.finish_reason) == (True, "time")
    assert tokens == generate(model, [1], len(tokens), overflow="truncate_left")
    assert model.kv_bytes_in_use == 0


def test_time_that_is_over_before_a_text_begins(model):
    together = made_of(model, [{"prompt": [1], "max_tokens": 3, "max_time": 1e-9}] * 3)
    assert all(run(model, together, batch_size=1))
    assert [(one.tokens, one.finish_reason) for one in together] == [([], "time")] * 3


def test_cancellation_from_another_thread(model):
    long = {"prompt": [1], "max_tokens": 10**9, "overflow": "truncate_left"}
    together = made_of(model, [long, {"prompt": [2], "max_tokens": 20}, long])
    thread = threading.Thread(target=lambda: [list(run(model, together))])
    thread.start()
    while len(together[0].tokens) < 30:
        time.sleep(0.001)
    together[0].cancel()
    while together[0].finish_reason != "cancelled":
        time.sleep(0.001)
    together[2].cancel()
    thread.join(timeout=10)
    assert [one.finish_reason for one in together] == ["cancelled", "length", "cancelled"]
    assert model.kv_bytes_in_use == 0


def test_cancelled_before_it_begins(model):
    request = request_of(model, [1], 5, GREEDY)
    request.cancel()
    assert list(model.tokens(request)) == []
    assert request.finish_reason == "cancelled"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 2.5}, "max_tokens is 2.5; it must be a whole number from 1 on"),
        ({"prefix": [1, 2], "max_tokens": 2}, "tokens of prefix is 2; it must be a whole number below max_tokens, 2"),
        ({"params": SamplingParams(min_tokens=2)}, "min_tokens is 2; it must be a whole number up to max_tokens, 1"),
        ({"max_time": 0}, "max_time is 0; it must be above 0 seconds"),
        ({"max_time": "1"}, "max_time is '1'; it must be above 0 seconds"),
        ({"sample": -1}, r"sample is -1; it must be a whole number from 0 to 2\^64 - 1"),
        ({"logprobs": 62}, "logprobs is 62; it must be a whole number from 0 to 61"),
        ({"stop_ids": {61}}, "token in stop is 61; it must be a whole number from 0 to 60"),
        (
            {"params": SamplingParams(logit_bias={61: 1.0})},
            "logit_bias has token 61; it must be a whole number from 0 to 60",
        ),
        (
            {"params": SamplingParams(bad_words=((1, -1),))},
            "bad_words has token -1; it must be a whole number from 0 to 60",
        ),
        ({"prompt": []}, "the prompt has no tokens"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be a whole number from 1 on"),
        ({"overflow": "wrap"}, "overflow is 'wrap'; choose 'error', 'truncate_left', 'keep_first'"),
    ],
)
def test_bad_requests(model, options, message):
    with pytest.raises(ValueError, match=message):
        request_of(model, **{"prompt": [1], "max_tokens": 1, "params": GREEDY, **options})


def test_a_token_outside_of_the_vocabulary_frees_what_it_took(model):
    with pytest.raises(ValueError, match=r"token 61 is not in 0\.\.60"):
        generate(model, [1, 61], 3, GREEDY)
    assert model.kv_bytes_in_use == 0


def test_pages_are_given_back(model):
    generate(model, [1], 20, GREEDY)
    assert model.kv_bytes_in_use == 0
    ids = model.tokens(request_of(model, [1], 20, GREEDY))
    next(ids)
    assert model.kv_bytes_in_use > 0
    del ids
    assert model.kv_bytes_in_use == 0


def test_what_was_abandoned_may_be_collected_in_the_middle_of_a_pass(model, monkeypatch):
    expected = generate(model, [1], 20, GREEDY)
    ids = model.tokens(request_of(model, [1], 20, GREEDY))
    next(ids)
    cycle = [ids]
    cycle.append(cycle)
    del ids, cycle
    place = model.runner._place

    def collect_and_place(*rows):
        gc.collect()
        return place(*rows)

    monkeypatch.setattr(model.runner, "_place", collect_and_place)
    assert generate(model, [1], 20, GREEDY) == expected
    assert model.kv_bytes_in_use == 0


def test_python_threads_get_what_they_would_get_alone(file):
    model = open_model(file, n_threads=2)
    jobs = [([n, n + 1], SamplingParams(3.0, 0, 1.0, seed=n)) for n in range(6)]
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
    assert model.kv_bytes_in_use == 0
