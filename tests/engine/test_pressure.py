"""Requests that want more memory than there is, that fail, that ask in steps of others, or are interrupted."""

import threading

import numpy as np
import pytest
from models import advance, request_of
from workload import COMMON, LARGEST, N_VOCAB, WILD, of_pages, outcome, outcome_alone, run_all

from nbgpt.abi.layout import PAGE
from nbgpt.engine.kept_text import KeptText
from nbgpt.engine.kv_cache import KVMemoryError, Sequence
from nbgpt.engine.request import State


def test_a_request_that_never_fits_is_refused_with_the_sizes(file):
    model = of_pages(file, 3)
    page = model.cache.page_bytes
    for prompt, max_tokens, n_tokens in ((COMMON[:192], 2, 193), (COMMON[:10], 290, 299), (COMMON[:193], 1, 193)):
        wanted = -(-n_tokens // PAGE)
        message = f"{n_tokens} tokens take {wanted * page} bytes of keys and values, kv_memory is {3 * page}: shorten"
        with pytest.raises(ValueError, match=message):
            model.add(request_of(model, prompt, max_tokens, WILD))
    for prompt, max_tokens in ((COMMON[:192], 1), (COMMON[:92], 101)):
        assert len(list(model.tokens(request_of(model, prompt, max_tokens, WILD)))) == max_tokens
    prefix = COMMON[:100]
    assert len(list(model.tokens(request_of(model, COMMON[:92], 101, WILD, prefix=prefix)))) == 101


def test_one_that_does_not_fit_waits_and_is_not_overtaken(file, alone):
    model = of_pages(file, LARGEST)
    jobs = [{"prompt": COMMON[n:190], "max_tokens": m, "params": WILD} for n, m in ((0, 100), (40, 50), (185, 20))]
    first, large, small = (request_of(model, **job) for job in jobs)
    for request in (first, large, small):
        model.add(request)
    while first.state is not State.FINISHED:
        assert large.state is small.state is State.WAITING
        advance(model, [first, large, small])
        if not first.finish_reason:
            advance(model, [small])  # though it is asked for alone, in a moment in which nobody else is
    run_all(model, [large, small])
    assert model.scheduler.n_preemptions == 0
    assert [outcome(one) for one in (first, large, small)] == [outcome_alone(alone, job) for job in jobs]


def test_running_requests_give_way_to_older_ones(file, alone):
    """All prompts fit, their texts do not: the youngest is put back."""
    jobs = [{"prompt": COMMON[n : n + 60], "max_tokens": 200, "params": WILD} for n in (0, 70, 140)]
    model = of_pages(file, LARGEST)
    requests = [request_of(model, **job) for job in jobs]
    run_all(model, requests)
    assert model.scheduler.n_preemptions > 0
    assert [outcome(one) for one in requests] == [outcome_alone(alone, job) for job in jobs]


def test_what_nobody_asks_for_gives_way_whatever_its_age(file, alone):
    """A text that was begun and is not gone on with must not keep others from their memory for ever."""
    jobs = [{"prompt": COMMON[n : n + 200], "max_tokens": 90, "params": WILD} for n in (0, 50)]
    model = of_pages(file, LARGEST)
    old, young = (request_of(model, **job) for job in jobs)
    model.add(old)
    advance(model, [old])
    assert list(model.tokens(young)) == outcome_alone(alone, jobs[1])[0]
    assert model.scheduler.n_preemptions == 1
    while old.state is not State.FINISHED:
        advance(model, [old])
    assert outcome(old) == outcome_alone(alone, jobs[0])


def test_idle_sessions_are_dropped_least_recently_used_first(file, alone):
    model, kept = of_pages(file, 3 * LARGEST), [KeptText() for _ in range(3)]
    jobs = [{"prompt": COMMON[n : n + 200], "max_tokens": 90, "params": WILD} for n in (0, 30, 60, 90, 95)]
    for job, one in zip(jobs, kept, strict=False):
        list(model.tokens(request_of(model, **job, kept=one)))
    again = request_of(model, **jobs[0], kept=kept[0])  # now it is the latest
    list(model.tokens(again))
    assert again.timing.prompt_tokens == 1
    model.scheduler.prefix_cache.clear()
    assert [len(one.ids) for one in kept] == [289] * 3
    held = [request_of(model, **job) for job in jobs[3:]]
    for n, request in enumerate(held):
        model.add(request)
        advance(model, [request])
        assert [len(one.ids) for one in kept] == [[289, 0, 289], [289, 0, 0]][n]
    for n, job in enumerate(jobs[:3]):
        longer = {**job, "prompt": [*job["prompt"], 7]}
        request = request_of(model, **longer, kept=kept[n])
        list(model.tokens(request))
        assert outcome(request) == outcome_alone(alone, longer)


@pytest.mark.parametrize("n_held", [LARGEST, LARGEST - 1])
def test_a_wait_that_nothing_can_end_is_refused(file, alone, n_held):
    """As beams hold what no request can give back."""
    model = of_pages(file, LARGEST)
    job = {"prompt": COMMON[:100], "max_tokens": 20, "params": WILD}
    beam = Sequence()
    model.append(beam, COMMON[: n_held * PAGE - 30])
    request = request_of(model, **job)
    with pytest.raises(KVMemoryError, match=f"the KV cache of {LARGEST} pages is full of what cannot be dropped"):
        list(model.tokens(request))
    model.free(beam)
    assert model.kv_bytes_in_use == 0
    assert list(model.tokens(request_of(model, **job))) == outcome_alone(alone, job)[0]


def test_only_the_one_that_nothing_can_help_is_refused(file, alone):
    """The oldest wants one more page, and beams have it: the others go on."""
    jobs = [
        {"prompt": COMMON[:60], "max_tokens": 150, "params": WILD},
        {"prompt": [1], "max_tokens": 60, "params": WILD},
    ]
    model = of_pages(file, LARGEST)
    beam = Sequence()
    model.append(beam, COMMON[: 3 * PAGE])
    requests = [request_of(model, **job) for job in jobs]
    run_all(model, requests)
    assert isinstance(requests[0].error, KVMemoryError)
    assert outcome(requests[1]) == outcome_alone(alone, jobs[1])
    model.free(beam)
    assert model.kv_bytes_in_use == 0


def test_calls_beside_running_requests_and_sessions(file, alone):
    """Scores, hidden states and searches take what can be read again, from requests that run too."""
    model, kept = of_pages(file, LARGEST + 1), KeptText()
    jobs = [{"prompt": COMMON[n : n + 100], "max_tokens": 150, "params": WILD} for n in (0, 50)]
    list(model.tokens(request_of(model, COMMON[60:100], 30, WILD, kept=kept)))
    requests = [request_of(model, **job) for job in jobs]
    for request in requests:
        model.add(request)
    n_calls = 0
    while going_on := [one for one in requests if one.state is not State.FINISHED]:
        advance(model, going_on)
        n_calls += 1
        if n_calls % 20 == 0:
            np.testing.assert_array_equal(model.nll(COMMON), alone.nll(COMMON))
            for ours, theirs in zip(model.hidden([COMMON], 2), alone.hidden([COMMON], 2), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert [outcome(one) for one in requests] == [outcome_alone(alone, job) for job in jobs]
    assert model.scheduler.n_preemptions > 2
    assert kept.ids == []


def test_memory_stays_the_same_over_many_requests(file):
    model, kept, rng = of_pages(file, 3 * LARGEST), KeptText(), np.random.default_rng(0)
    for n in range(1000):
        prompt = [*COMMON[: rng.integers(100)], int(rng.integers(N_VOCAB))]
        request = request_of(model, prompt, 2, WILD, kept=kept if n % 3 == 0 else None)
        ids = model.tokens(request)
        next(ids)
        if n % 2:
            list(ids)
        del ids, request
    model.forget(kept)
    assert model.kv_bytes_in_use == 0
    cache, scheduler = model.cache, model.scheduler
    assert cache.n_used == len(scheduler.prefix_cache._nodes) <= 2 * LARGEST
    assert len(cache._claims) <= len(scheduler.prefix_cache._nodes) + 1
    assert (list(scheduler._queue), scheduler._queue.has_arrivals, scheduler._in_step) == ([], False, [])


# --- Errors, and steps within steps -----------------------------------------------------------------------------------


def failing_after(n):
    def fail(ids, logits):
        if len(ids) >= n:
            raise ZeroDivisionError
        return logits

    return (fail,)


def test_an_error_of_one_request_is_its_own(file, alone):
    model = of_pages(file, LARGEST + 2)
    jobs = [{"prompt": COMMON[n : n + 40], "max_tokens": 60, "params": WILD} for n in range(3)]
    bad = request_of(model, COMMON[:30], 60, WILD, logits_processors=failing_after(50))
    requests = [request_of(model, **job) for job in jobs]
    run_all(model, [requests[0], bad, *requests[1:]])
    assert isinstance(bad.error, ZeroDivisionError)
    assert len(bad.tokens) == 20
    assert [outcome(one) for one in requests] == [outcome_alone(alone, job) for job in jobs]
    assert model.kv_bytes_in_use == 0


@pytest.mark.parametrize("n_pages", [LARGEST, 2 * LARGEST, 200])
def test_a_processor_asks_its_own_model(file, alone, n_pages):
    """Logits, and texts in steps within the step, though the cache has no room for both."""
    model, seen = of_pages(file, n_pages), []

    def ask(ids, logits):
        if len(ids) % 7 == 0:
            last = np.concatenate(list(model.logits(COMMON[:150])))[-1]
            seen.append((last, list(model.tokens(request_of(model, COMMON[:200], 5, WILD)))))
        return logits

    expected_logits = np.concatenate(list(alone.logits(COMMON[:150])))[-1]
    expected = outcome_alone(alone, {"prompt": COMMON[:200], "max_tokens": 5, "params": WILD})[0]
    jobs = [{"prompt": COMMON[:n], "max_tokens": 40, "params": WILD, "logprobs": 1} for n in (205, 100, 30)]
    requests = [request_of(model, **job, logits_processors=(ask,) if n else ()) for n, job in enumerate(jobs)]
    run_all(model, requests)
    assert [one.error for one in requests] == [None] * 3
    assert [outcome(one) for one in requests] == [outcome_alone(alone, job) for job in jobs]
    assert len(seen) > 5
    for logits, ids in seen:
        np.testing.assert_array_equal(logits, expected_logits)
        assert ids == expected
    assert model.kv_bytes_in_use == 0


def test_what_a_step_within_a_step_cannot_have_is_an_error_of_its_own(file):
    """It never waits for the step around it."""
    model, errors = of_pages(file, LARGEST), []
    beam = Sequence()
    model.append(beam, COMMON[: 3 * PAGE])

    def ask(ids, logits):
        try:
            list(model.tokens(request_of(model, COMMON[:200], 5, WILD)))
        except KVMemoryError as error:
            errors.append(error)
        return logits

    request = request_of(model, COMMON[:20], 3, WILD, logits_processors=(ask,))
    assert len(list(model.tokens(request))) == 3
    assert len(errors) == 3


@pytest.mark.parametrize("within", ["_place", "_set_rows", "forward"])
def test_an_interrupt_within_a_step_ends_all_that_took_part(file, alone, monkeypatch, within):
    """Wherever it comes, what others read is an error, never another text; who did not take part goes on."""
    model = of_pages(file, 50)
    jobs = [{"prompt": COMMON[n : n + 50], "max_tokens": 30, "params": WILD} for n in range(3)]
    ours, theirs, paused = (request_of(model, **job) for job in jobs)
    for request in (ours, theirs, paused):
        model.add(request)
    advance(model, [ours, theirs, paused])
    original = getattr(model.runner, within)

    def interrupt(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(model.runner, within, interrupt)
    with pytest.raises(KeyboardInterrupt):
        advance(model, [ours, theirs])
    monkeypatch.setattr(model.runner, within, original)
    for request in (ours, theirs):
        assert "interrupted" in str(request.error)
    run_all(model, [paused])
    assert outcome(paused) == outcome_alone(alone, jobs[2])
    assert model.kv_bytes_in_use == 0


def test_a_second_interrupt_while_a_step_ends(file, monkeypatch):
    """Then the next call ends what took part, and a session keeps nothing of it."""
    model, kept = of_pages(file, 50), KeptText()
    request = request_of(model, COMMON[:50], 30, WILD, kept=kept)
    model.add(request)
    advance(model, [request])

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model.runner, "forward", interrupt)
        patch.setattr(request, "fail", interrupt)
        with pytest.raises(KeyboardInterrupt):
            advance(model, [request])
    assert request.error is None
    kept.ended.append(request.window)  # as a stream does that is dropped
    model.settle(kept)
    assert "interrupted" in str(request.error)
    assert kept.ids == []
    assert model.kv_bytes_in_use == 0


# --- Threads ----------------------------------------------------------------------------------------------------------


def test_threads_that_want_more_memory_than_there_is(file, alone):
    """Each asks for its own, some slowly: all end, with their texts."""
    model, texts = of_pages(file, LARGEST + 1), {}
    jobs = [{"prompt": COMMON[n : n + 150], "max_tokens": 60, "params": WILD} for n in range(5)]

    def work(number):
        texts[number] = []
        for token in model.tokens(request_of(model, **jobs[number])):
            texts[number].append(token)
            if number == 0:
                threading.Event().wait(0.002)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert texts == {number: outcome_alone(alone, job)[0] for number, job in enumerate(jobs)}
    assert model.kv_bytes_in_use == 0
