"""Speculative decoding: the ids of plain decoding, whatever is drafted, and no drafts where they do not pay."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from models import config_of, open_model, random_params, request_of, write_native

import nbgpt
from nbgpt.decoding.speculative import ModelDraft, PromptLookup
from nbgpt.engine.kv_cache import Sequence
from nbgpt.engine.speculation import DEFAULT_MAX_DRAFT, Pace, Speculation, Statistics, verify
from nbgpt.sampling.params import SamplingParams

N_VOCAB, N_CTX = 61, 100
NEVER = N_VOCAB  # an end of text that no model draws
PROMPT = [5, 6, 7]
SAMPLINGS = [SamplingParams(temperature=0), *(SamplingParams(3.0, 20, 0.9, seed) for seed in range(3))]
samplings = pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "seed 0", "seed 1", "seed 2"])


CONFIG = config_of(n_vocab=N_VOCAB, n_ctx=N_CTX, tied_embeddings=False)  # tied, it would repeat what it reads
PARAMS = random_params(CONFIG)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return open_model(write_native(tmp_path_factory.mktemp("models") / "m.safetensors", PARAMS, CONFIG, "float32"), 2)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A model that says much the same, with a shorter context."""
    noise = np.random.default_rng(1).standard_normal(PARAMS["lm_head.weight"].shape, np.float32)
    params = {**PARAMS, "wpe.weight": PARAMS["wpe.weight"][:40], "lm_head.weight": PARAMS["lm_head.weight"] + noise / 2}
    path = tmp_path_factory.mktemp("models") / "m.safetensors"
    return open_model(write_native(path, params, replace(CONFIG, n_ctx=40), "float32"))


@pytest.fixture
def always_drafts(monkeypatch):
    """As much as there is room for, however long it takes."""
    monkeypatch.setattr(Pace, "length", lambda self, most: most)
    monkeypatch.setattr(Pace, "note", lambda self, n_drafted, n_ids, seconds: None)


def ends(eos_id):
    return frozenset() if eos_id in (None, NEVER) else frozenset({eos_id})


def plain(model, prompt, max_tokens, sampling, eos_id=NEVER, sample=0):
    return list(model.tokens(request_of(model, prompt, max_tokens, sampling, stop_ids=ends(eos_id), sample=sample)))


def speculative_ids(
    model,
    prompt_ids,
    max_tokens,
    sampling,
    drafter,
    *,
    eos_id=None,
    sample=0,
    max_draft=DEFAULT_MAX_DRAFT,
    statistics=None,
):
    speculation = Speculation(drafter, max_draft, statistics)
    return model.tokens(
        request_of(
            model, prompt_ids, max_tokens, sampling, stop_ids=ends(eos_id), sample=sample, speculation=speculation
        )
    )


class Knowing:
    """Drafts from a text that it knows, with a change to every so manieth id (0: to none)."""

    def __init__(self, text, wrong_every=0):
        self.text, self.wrong_every = text, wrong_every

    def propose(self, ids, n, options):
        places = range(len(ids), min(len(ids) + n, len(self.text)))
        is_wrong = [self.wrong_every and place % self.wrong_every == 0 for place in places]
        return [(self.text[place] + wrong) % N_VOCAB for place, wrong in zip(places, is_wrong, strict=True)]

    def reset(self):
        pass


class Guessing:
    """Drafts any ids, and at times more than it was asked for."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def propose(self, ids, n, options):
        return self.rng.integers(0, N_VOCAB, self.rng.integers(0, n + 3)).tolist()

    def reset(self):
        pass


@samplings
@pytest.mark.parametrize("max_draft", [1, 6, 15])
@pytest.mark.parametrize("wrong_every", [0, 1, 2, 3, 7])
def test_known_texts(model, always_drafts, sampling, max_draft, wrong_every):
    """Right, always wrong, and right for some ids; up to the last position of the context."""
    expected = plain(model, PROMPT, N_CTX - 3, sampling)
    drafter, statistics = Knowing([*PROMPT, *expected], wrong_every), Statistics()
    settings = {"max_draft": max_draft, "statistics": statistics}
    assert list(speculative_ids(model, PROMPT, N_CTX - 3, sampling, drafter, **settings)) == expected
    assert statistics.passes + statistics.accepted == N_CTX - 4  # the first comes with the prompt
    assert statistics.proposed > 0
    assert statistics.acceptance_rate == {0: 1.0, 1: 0.0}.get(wrong_every, statistics.acceptance_rate)
    if wrong_every == 0:
        assert statistics.passes == -(-(N_CTX - 4) // (max_draft + 1))
    assert model.kv_bytes_in_use == 0


@samplings
@pytest.mark.parametrize("drafter", [Guessing(), PromptLookup(), PromptLookup(1, 1), PromptLookup(9, 3)])
def test_guesses(model, always_drafts, sampling, drafter):
    for prompt in ([1], [2, 3] * 20, list(range(N_VOCAB))):
        n = N_CTX - len(prompt)
        assert list(speculative_ids(model, prompt, n, sampling, drafter)) == plain(model, prompt, n, sampling)


@samplings
def test_drafting_as_it_pays(model, sampling):
    """Lengths of drafts depend on the clock; ids do not."""
    expected = plain(model, PROMPT, 90, sampling)
    for drafter in (Knowing([*PROMPT, *expected]), Knowing([*PROMPT, *expected], 4), Guessing(), PromptLookup()):
        assert list(speculative_ids(model, PROMPT, 90, sampling, drafter)) == expected


def test_another_sample(model, always_drafts):
    sampling = SAMPLINGS[1]
    texts = [plain(model, PROMPT, 30, sampling, sample=sample) for sample in (0, 1)]
    assert texts[0] != texts[1]
    assert list(speculative_ids(model, PROMPT, 30, sampling, Knowing([*PROMPT, *texts[0]]), sample=1)) == texts[1]


def test_the_end_of_text_ends_it_wherever_it_is_drawn(model, always_drafts):
    everything = plain(model, PROMPT, 60, SAMPLINGS[1])
    for end in set(everything):
        for drafter in (Knowing([*PROMPT, *everything]), Guessing()):
            ids = list(speculative_ids(model, PROMPT, 60, SAMPLINGS[1], drafter, eos_id=end))
            assert ids == everything[: everything.index(end)]
    assert model.kv_bytes_in_use == 0


def test_verify(model):
    past = Sequence()
    model.runner.append(past, PROMPT[:-1])
    right = plain(model, PROMPT, 9, SAMPLINGS[0])
    draft = [*right[:3], (right[3] + 1) % N_VOCAB, right[4]]
    assert verify(model.runner, past, PROMPT, draft, lambda place: (0, 0, 1, 0)) == right[:4]
    assert past.length == len(PROMPT) + 3
    assert verify(model.runner, past, [*PROMPT, *right[:4]], right[4:8], lambda place: (0, 0, 1, 0)) == right[4:]
    model.free(past)


# --- Prompt lookup ---------------------------------------------------------------------------------------------------


def looked_up(ids, n, max_ngram, min_ngram):
    """The twin: try every earlier place for the longest match, the latest first, and copy id by id."""
    for size in range(max_ngram, min_ngram - 1, -1):
        for place in range(len(ids) - 1, size - 1, -1):
            if ids[place - size : place] == ids[-size:]:
                text = list(ids)
                for i in range(n):
                    text.append(text[place + i])
                return text[len(ids) :]
    return []


@pytest.mark.parametrize(("max_ngram", "min_ngram"), [(4, 2), (1, 1), (3, 1), (5, 5)])
def test_lookup_is_the_twin(rng, max_ngram, min_ngram):
    drafter = PromptLookup(max_ngram, min_ngram)
    n_found = 0
    for n_letters in (2, 4, 9):
        ids = rng.integers(0, n_letters, rng.integers(1, 20)).tolist()
        while len(ids) < 150:
            n = int(rng.integers(1, 9))
            draft = drafter.propose(ids, n, lambda place: (0, 0, 1, 0))
            assert draft == looked_up(ids, n, max_ngram, min_ngram)
            n_found += bool(draft)
            ids += rng.integers(0, n_letters, rng.integers(1, 4)).tolist()
        drafter.reset()
    assert n_found > 20


# --- Another model drafts --------------------------------------------------------------------------------------------


@samplings
def test_a_model_that_drafts_for_itself_is_always_right(model, always_drafts, sampling):
    """Which it would not be, with random numbers of its own."""
    statistics = Statistics()
    drafter = ModelDraft(model, model)
    ids = list(speculative_ids(model, PROMPT, 80, sampling, drafter, max_draft=4, statistics=statistics))
    assert ids == plain(model, PROMPT, 80, sampling)
    assert statistics.acceptance_rate == 1
    assert statistics.proposed == 64 - 1  # of the last five ids, one is drawn, not drafted
    assert model.kv_bytes_in_use == 0


@samplings
def test_another_model_drafts(model, other, always_drafts, sampling):
    """Even beyond its own context, and for one text after another."""
    drafter, statistics = ModelDraft(other, model), Statistics()
    for prompt in (PROMPT, [1], [*PROMPT, 1]):
        ids = list(speculative_ids(model, prompt, 90, sampling, drafter, max_draft=5, statistics=statistics))
        assert ids == plain(model, prompt, 90, sampling)
        assert (model.kv_bytes_in_use, other.kv_bytes_in_use) == (0, 0)
    assert 0.1 < statistics.acceptance_rate < 0.9
    assert statistics.proposed > 60


def test_another_vocabulary_is_refused(model, tmp_path):
    config = replace(CONFIG, n_vocab=60)
    draft = open_model(write_native(tmp_path / "m.safetensors", random_params(config), config, "float32"))
    with pytest.raises(
        ValueError, match="the draft's vocabulary has 60 tokens, the model's 61; both must have the same"
    ):
        ModelDraft(draft, model)


def test_a_draft_does_not_wait_for_a_model_that_is_busy(model, other, always_drafts):
    """It runs under the target's lock, which the draft model's owner may want: the text goes on without drafts."""
    is_held, is_written, was_written = threading.Event(), threading.Event(), []

    def hold():
        with other.lock:
            is_held.set()
            was_written.append(is_written.wait(20))  # a safety net: else the test would hang

    holding = threading.Thread(target=hold, daemon=True)
    holding.start()
    assert is_held.wait(20)
    statistics = Statistics()
    ids = list(speculative_ids(model, PROMPT, 20, SAMPLINGS[1], ModelDraft(other, model), statistics=statistics))
    is_written.set()
    holding.join(20)
    assert was_written == [True]
    assert ids == plain(model, PROMPT, 20, SAMPLINGS[1])
    assert statistics.proposed == 0


def test_pages_are_given_back(model, other, always_drafts):
    ids = speculative_ids(model, PROMPT, 50, SAMPLINGS[1], ModelDraft(other, model))
    for _ in range(5):
        next(ids)
    assert model.kv_bytes_in_use > 0
    assert other.kv_bytes_in_use > 0
    del ids
    assert (model.kv_bytes_in_use, other.kv_bytes_in_use) == (0, 0)


# --- How much to draft -----------------------------------------------------------------------------------------------


def speedup(p, cost, n_ids=400, seed=0):
    """Plain seconds / speculative ones when drafted ids are right with probability p and add `cost` of a pass each."""
    rng, pace, seconds, n_done = np.random.default_rng(seed), Pace(), 0.0, 0
    while n_done < n_ids:
        n = pace.length(min(15, n_ids - n_done - 1))
        n_new = int(np.argmin([*(rng.random(n) < p), False])) + 1 if n else min(max(1, pace.rest), n_ids - n_done)
        spent = (1 + n * cost if n else n_new) * rng.lognormal(0, 0.1)  # clocks and neighbours
        pace.note(n, n_new, spent)
        seconds += spent
        n_done += n_new
    return n_ids / seconds


@pytest.mark.parametrize("cost", [0.0, 0.05, 0.15, 0.3, 0.6, 1.0, 3.0])
def test_it_is_never_much_slower(cost):
    for p in (0.0, 0.02, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.0):
        assert np.median([speedup(p, cost, seed=seed) for seed in range(15)]) > 0.95


@pytest.mark.parametrize(("p", "cost", "least"), [(1, 0.15, 4), (0.9, 0.15, 2.2), (0.7, 0.15, 1.4), (0.9, 0.05, 4)])
def test_it_is_faster_where_drafts_are_right(p, cost, least):
    assert np.median([speedup(p, cost, seed=seed) for seed in range(15)]) > least


def test_it_notices_that_a_text_has_become_predictable():
    pace = Pace()
    for _ in range(200):
        n = pace.length(15)
        pace.note(n, 1, 1.0 + 0.1 * n)
    lengths = []
    for _ in range(60):
        n = pace.length(15)
        lengths.append(n)
        pace.note(n, n + 1, 1.0 + 0.1 * n)
    assert lengths[-1] == 15
    assert lengths.count(15) > 20


def test_costs_go_up_in_steps():
    """Eight rows at the price of one, sixteen at four times that: eight it is."""
    pace = Pace()
    for _ in range(60):
        n = pace.length(15)
        pace.note(n, n + 1, 1.0 if n < 8 else 4.0)
    assert n == 7


def test_where_nothing_is_found_it_looks_less_often():
    pace, rests = Pace(), []
    pace.note(0, 1, 1.0)
    for _ in range(7):
        assert pace.length(15) == 1
        pace.note_nothing()
        rests.append(pace.rest)
        assert pace.length(15) == 0
        pace.note(0, pace.rest, float(pace.rest))
    assert rests == [2, 4, 8, 16, 16, 16, 16]
    pace.note(pace.length(15), 1, 1.0)  # found, but wrong
    pace.note_nothing()
    assert pace.rest == 16
    pace.note(0, 16, 16.0)
    pace.note(pace.length(15), 2, 1.0)
    pace.note_nothing()
    assert pace.rest == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_draft": 0}, "max_draft is 0; it must be from 1 to 127"),
        ({"max_draft": 128}, "max_draft is 128; it must be from 1 to 127"),
        ({"prompt_ids": []}, "the prompt has no tokens"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be a whole number from 1 on"),
        ({"max_tokens": 99}, "prompt of 3 tokens and 99 new ones need 101 positions; this model's context is 100"),
    ],
)
def test_bad_values(model, options, message):
    request = {"model": model, "prompt_ids": PROMPT, "max_tokens": 5, "sampling": SAMPLINGS[0]}
    with pytest.raises(ValueError, match=message):
        speculative_ids(**{**request, "drafter": PromptLookup(), **options})


def test_bad_ngrams():
    with pytest.raises(ValueError, match="min_ngram is 0; it must be at least 1"):
        PromptLookup(3, 0)
    with pytest.raises(ValueError, match="max_ngram is 1; it must be at least min_ngram, 2"):
        PromptLookup(1, 2)


def test_texts_of_a_model_are_the_same_with_guesses():
    model = nbgpt.load()
    prompt = "The cat sat on the mat. " * 4
    options = {"max_tokens": 60, "seed": 3, "temperature": 0.3}
    plain = model.generate(prompt, **options)
    for guesses in ({"prompt_lookup": True}, {"draft_model": nbgpt.load()}):
        guessed = model.generate(prompt, **options, **guesses)
        assert (guessed.tokens, guessed.finish_reason) == (plain.tokens, plain.finish_reason)
        assert guessed.speculation.passes > 0
    assert plain.speculation is None
    with pytest.raises(ValueError, match="choose one"):
        model.generate(prompt, prompt_lookup=True, draft_model=model)
