"""Requests that join, leave, pause and are put back at any step write what each writes alone, to the bit."""

from itertools import count

import numpy as np
import pytest
from models import advance, request_of
from workload import COMMON, LARGEST, N_CTX, N_VOCAB, SAMPLERS, WILD, of_pages, outcome, outcome_alone, run_all

from nbgpt.decoding.speculative import ModelDraft, PromptLookup
from nbgpt.engine.kept_text import KeptText
from nbgpt.engine.request import State
from nbgpt.engine.speculation import Speculation
from nbgpt.engine.work import LEAST_READ, ROW_BUDGET, row_budget


def ask_in_turns(model, requests):
    """Ask for one request after the other until all have ended; each is paused while another is asked."""
    for request in requests:
        model.add(request)
    for n in count():
        going_on = [one for one in requests if one.state is not State.FINISHED]
        if not going_on:
            break
        advance(model, [going_on[n % len(going_on)]])
        for request in requests:
            request.last_asked = -np.inf


def random_job(rng):
    """What to ask for: prompts share beginnings of any length, and some outgrow the context."""
    n_shared, n_own = rng.integers(0, 200), rng.integers(1, 60)
    prompt = [*COMMON[:n_shared], *rng.integers(0, N_VOCAB, n_own).tolist()]
    overflow = rng.choice(["error", "truncate_left", "keep_first"])
    room = N_CTX - len(prompt) if overflow == "error" else 150
    job = {
        "prompt": prompt,
        "max_tokens": int(rng.integers(1, min(150, room) + 1)),
        "params": SAMPLERS[rng.integers(len(SAMPLERS))],
        "overflow": str(overflow),
        "sample": int(rng.integers(3)),
    }
    if rng.random() < 0.3:
        job |= {"logprobs": int(rng.integers(3)), "echo": bool(rng.random() < 0.5)}
    if rng.random() < 0.2:
        job["prefix"] = rng.integers(0, N_VOCAB, rng.integers(job["max_tokens"])).tolist()
    if rng.random() < 0.2:
        job["stop_ids"] = frozenset(rng.integers(0, N_VOCAB, 2).tolist())
    return job


def with_extras(rng, job, kept):
    """Speculation or a session, neither of which shows in the text."""
    if rng.random() < 0.3:
        return {**job, "speculation": Speculation(PromptLookup())}
    return {**job, "kept": kept[rng.integers(len(kept))]} if rng.random() < 0.4 else job


@pytest.mark.parametrize("n_pages", [LARGEST, LARGEST + 2, 2 * LARGEST, 200])
@pytest.mark.parametrize("seed", [0, 1])
def test_any_order_of_steps(file, alone, n_pages, seed):
    """At each step another few take part; some are cancelled or dropped on the way."""
    rng, model = np.random.default_rng(seed), of_pages(file, n_pages)
    jobs = [random_job(rng) for _ in range(40)]
    expected = [outcome_alone(alone, job) for job in jobs]
    kept, waiting, growing, ended = [KeptText() for _ in range(3)], list(range(len(jobs))), {}, {}
    while waiting or growing:
        if waiting and (not growing or rng.random() < 0.2):
            number = waiting.pop()
            growing[number] = request_of(model, **with_extras(rng, jobs[number], kept))
            model.add(growing[number])
        asked = [number for number in growing if rng.random() < 0.7]
        for number in asked:
            growing[number].last_asked = -np.inf if rng.random() < 0.1 else growing[number].last_asked  # as if long ago
        advance(model, [growing[number] for number in asked])
        if growing and rng.random() < 0.006:
            growing[rng.choice(list(growing))].cancel()
        if growing and rng.random() < 0.002:
            del growing[rng.choice(list(growing))]
        for number in [number for number, request in growing.items() if request.finish_reason]:
            ended[number] = growing.pop(number)
            assert ended[number].error is None
    for number, request in ended.items():
        tokens, reason, measured = outcome(request)
        if reason == "cancelled":
            n = len(tokens)
            assert tokens == expected[number][0][:n]
            assert measured == expected[number][2][: len(measured)]
        else:
            assert (tokens, reason, measured) == expected[number]
    assert len(ended) > 30
    assert {request.finish_reason for request in ended.values()} == {"stop", "length", "cancelled"}
    assert model.scheduler.n_preemptions > 0 or n_pages == 200
    for one in kept:
        model.forget(one)
    assert model.kv_bytes_in_use == 0


@pytest.mark.parametrize("sampler", range(len(SAMPLERS)))
@pytest.mark.parametrize("overflow", ["truncate_left", "keep_first"])
def test_windows_that_shift_and_are_put_back(file, alone, sampler, overflow):
    """Under pressure, a shifted window is read again; what it holds is nobody's prompt."""
    job = {"max_tokens": 400, "params": SAMPLERS[sampler], "overflow": overflow, "logprobs": 1, "echo": True}
    jobs = [{**job, "prompt": COMMON[:n]} for n in (290, 30, 299, 100)]
    model = of_pages(file, LARGEST + 3)
    requests = [request_of(model, **one) for one in jobs]
    run_all(model, requests)
    assert model.scheduler.n_preemptions > 2
    assert [outcome(one) for one in requests] == [outcome_alone(alone, one) for one in jobs]
    assert model.kv_bytes_in_use == 0


def test_nothing_is_measured_twice(file, alone):
    """Prompts whose every position is measured, put back in the middle of them."""
    jobs = [
        {"prompt": COMMON[n : n + 200], "max_tokens": 90, "params": WILD, "logprobs": 2, "echo": True} for n in range(4)
    ]
    model = of_pages(file, LARGEST)
    requests = [request_of(model, **job) for job in jobs]
    ask_in_turns(model, requests)
    assert model.scheduler.n_preemptions > 100
    assert [outcome(one) for one in requests] == [outcome_alone(alone, job) for job in jobs]


@pytest.mark.parametrize("n_pages", [LARGEST, LARGEST + 1, LARGEST + 2, 2 * LARGEST, 200])
def test_drafts_of_the_model_itself(file, alone, n_pages):
    """What is drafted takes pages of the cache that it is drafted for."""
    jobs = [{"prompt": COMMON[:n], "max_tokens": 100, "params": WILD} for n in (150, 60, 199)]
    model = of_pages(file, n_pages)
    requests = [request_of(model, **job, speculation=Speculation(ModelDraft(model, model))) for job in jobs]
    ask_in_turns(model, requests)
    assert [outcome(one) for one in requests] == [outcome_alone(alone, job) for job in jobs]
    assert all(one.error is None for one in requests)
    del requests
    assert model.kv_bytes_in_use == 0


# --- Rows -------------------------------------------------------------------------------------------------------------


def watch(model, monkeypatch):
    """Of each pass from now on: its rows as (sequence, position), or the number of steps of a multi-step decode."""
    passes, forward, decode = [], model.runner.forward, model.runner.decode_steps

    def watched(ids, sequences, *rest, **options):
        passes.append(sequences.copy())
        return forward(ids, sequences, *rest, **options)

    def decoding(sequences, ids, params):
        passes.append(len(params))
        return decode(sequences, ids, params)

    monkeypatch.setattr(model.runner, "forward", watched)
    monkeypatch.setattr(model.runner, "decode_steps", decoding)
    return passes


def begun(model, n, max_tokens=150):
    """Requests that are decoding."""
    requests = [request_of(model, [i % N_VOCAB], max_tokens, WILD, sample=i) for i in range(n)]
    for request in requests:
        model.add(request)
    advance(model, requests)
    assert all(len(one.tokens) == 1 for one in requests)
    return requests


@pytest.mark.parametrize("n_decoding", [1, 8, 40, 47, 48, 60, 100])
def test_decode_rows_come_first_and_prompts_fill_the_budget(file, monkeypatch, n_decoding):
    model = of_pages(file, 600)
    decoding, joining = begun(model, n_decoding), request_of(model, COMMON[:290], 5, WILD)
    passes = watch(model, monkeypatch)
    model.add(joining)
    while not joining.tokens:
        before = [len(one.tokens) for one in decoding]
        advance(model, [*decoding, joining])
        assert [len(one.tokens) for one in decoding] == [n + 1 for n in before]  # the prompt holds nobody up
    assert joining.window.sequence.length == 290
    budget = max(ROW_BUDGET, n_decoding + LEAST_READ)
    assert {len(rows) for rows in passes[:-1]} == {budget}
    for rows in passes:
        assert rows[:n_decoding] == [one.window.sequence for one in decoding]
        assert set(rows[n_decoding:]) == {joining.window.sequence}


def test_a_prompt_alone_is_read_at_once(file, monkeypatch):
    model = of_pages(file, 20)
    passes = watch(model, monkeypatch)
    request = request_of(model, COMMON[:290], 1, WILD)
    list(model.tokens(request))
    assert [len(rows) for rows in passes] == [290]


def test_multi_step_decode_is_cut_while_a_request_waits_or_is_read(file, monkeypatch):
    model = of_pages(file, LARGEST)
    monkeypatch.setattr("nbgpt.engine.request.CALL_SECONDS", 1e9)  # as many tokens as there is room for
    first, second = request_of(model, COMMON[:150], 150, WILD), request_of(model, COMMON[100:290], 3, WILD)
    passes = watch(model, monkeypatch)
    model.add(first)
    while len(first.tokens) < 5:
        advance(model, [first])
    assert max(n for n in passes if isinstance(n, int)) > 1
    passes.clear()
    model.add(second)
    while first.state is not State.FINISHED:
        advance(model, [first, second])
    assert second.state is State.WAITING  # for memory, all the time
    assert all(isinstance(rows, list) and len(rows) == 1 for rows in passes)
    advance(model, [second])
    assert len(second.tokens) == 1


def test_prompts_that_outnumber_the_texts_get_more_rows():
    assert row_budget(8, 1) == row_budget(8, 8) == row_budget(1, 1) == ROW_BUDGET
    assert row_budget(1, 15) == 15 * ROW_BUDGET
    assert row_budget(20, 45) == 2 * (20 + LEAST_READ)
    assert row_budget(0, 1) == row_budget(1, 100) == 512
    assert row_budget(8, 1, least_read=112) == 120
