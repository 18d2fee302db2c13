"""Beam search against all continuations there are, and against a plain twin, with the logits of the reference."""

from itertools import count, product

import numpy as np
import pytest
import reference
from models import config_of, open_model, random_params, request_of, write_native

from nbgpt.decoding.beam_search import beam_search
from nbgpt.sampling.params import SamplingParams

N_VOCAB = 5
CONFIG = config_of(n_vocab=N_VOCAB, n_ctx=80, tied_embeddings=False)  # tied, it would repeat what it reads
PARAMS = random_params(CONFIG)
PARAMS["ln_f.weight"] *= 0.2  # every token has a chance
PROMPT = [1, 2, 0]
EOS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return open_model(write_native(tmp_path_factory.mktemp("models") / "m.safetensors", PARAMS, CONFIG, "float32"), 2)


def log_probs(ids):  # -> [len(ids), n_vocab]
    """Of what follows each of them."""
    return np.log(reference.softmax(reference.gpt2(np.array(ids), PARAMS, CONFIG)))


def log_prob(ids, continuation):
    rows = log_probs([*ids, *continuation])[len(ids) - 1 :]
    return sum(row[token] for row, token in zip(rows, continuation, strict=False))


def naive_beams(ids, num_beams, max_tokens):
    """[(continuation, score)] of beams that never end, each read anew at each step."""
    beams = [([], 0.0)]
    for _ in range(max_tokens):
        after = [(new, total, log_probs([*ids, *new])[-1]) for new, total in beams]
        longer = [([*new, token], total + row[token]) for new, total, row in after for token in range(N_VOCAB)]
        beams = sorted(longer, key=lambda beam: -beam[1])[:num_beams]
    return [(new, total / max_tokens) for new, total in beams]


def check(found, expected):  # expected: [(ids, score)], best first
    assert [one.ids for one in found] == [ids for ids, _ in expected]
    np.testing.assert_allclose([one.score for one in found], [score for _, score in expected], rtol=1e-4, atol=0)


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.5])
def test_beams_for_everything_find_everything(model, length_penalty):
    """All 85 continuations of three tokens, those that end before it among them, in the right order."""
    endless = [ids for n in range(3) for ids in product(range(N_VOCAB - 1), repeat=n)]
    ended = [([*ids], log_prob(PROMPT, [*ids, EOS]) / (len(ids) + 1) ** length_penalty) for ids in endless]
    cut = [[*ids] for ids in product(range(N_VOCAB - 1), repeat=3)]
    expected = ended + [(ids, log_prob(PROMPT, ids) / 3**length_penalty) for ids in cut]
    expected.sort(key=lambda hypothesis: -hypothesis[1])
    assert len(expected) == 85
    found = beam_search(model, PROMPT, 200, 3, num_return=200, length_penalty=length_penalty, eos_ids={EOS})
    check(found, expected)
    assert [one.finish_reason for one in found] == ["length" if ids in cut else "stop" for ids, _ in expected]


@pytest.mark.parametrize("num_beams", [1, 2, 3, 7])
@pytest.mark.parametrize("n_prompt", [1, 3, 60])  # the last goes over the border of a page of the cache
def test_beams_that_go_on(model, num_beams, n_prompt):
    ids = np.random.default_rng(n_prompt).integers(0, N_VOCAB, n_prompt).tolist()
    found = beam_search(model, ids, num_beams, 12, num_return=num_beams)
    check(found, naive_beams(ids, num_beams, 12))


def test_it_finds_what_greedy_does_not(model):
    greedy, wide = (beam_search(model, PROMPT, n, 12)[0].score for n in (1, 7))
    assert wide > greedy


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_one_beam_is_greedy(model, early_stopping):
    for prompt in ([token] for token in range(N_VOCAB)):
        request = request_of(model, prompt, 10, SamplingParams(temperature=0), stop_ids=frozenset({EOS}))
        ids = list(model.tokens(request))
        [found] = beam_search(model, prompt, 1, 10, eos_ids={EOS}, early_stopping=early_stopping)
        assert (found.ids, found.finish_reason) == (ids, request.finish_reason)


def test_when_it_stops(model):
    """Sooner when it need not be sure; process is called once a beam and step."""
    calls = {}
    for early_stopping in (True, False, "never"):
        counter = count()
        settings = {"early_stopping": early_stopping, "eos_ids": {EOS}, "length_penalty": 1.0}
        beam_search(model, PROMPT, 3, 60, process=lambda ids, row, counter=counter: (next(counter), row)[1], **settings)
        calls[early_stopping] = next(counter)
    assert calls[True] <= calls[False] < calls["never"] == 1 + 3 * 59


def test_n_return_is_a_beginning(model):
    everything = beam_search(model, PROMPT, 6, 8, num_return=6, eos_ids={EOS})
    for n in range(1, 6):
        assert beam_search(model, PROMPT, 6, 8, num_return=n, eos_ids={EOS}) == everything[:n]


def test_process_changes_the_log_probabilities(model):
    seen = []

    def ban_what_is_there(ids, row):
        seen.append(ids.tolist())
        row[ids] = -np.inf
        return row

    found = beam_search(model, PROMPT, 3, 2, num_return=3, process=ban_what_is_there)
    assert [sorted(one.ids) for one in found] == [[3, 4], [3, 4]]  # all that there is
    assert seen[0] == PROMPT
    assert sorted(seen[1:]) == [[*PROMPT, 3], [*PROMPT, 4]]
    np.testing.assert_allclose([one.score for one in found], [log_prob(PROMPT, one.ids) / 2 for one in found], 1e-4)
    assert beam_search(model, PROMPT, 3, 5, process=lambda ids, row: row - np.inf) == []


def test_pages_are_given_back(model):
    def fail(ids, row):
        if len(ids) == 6:
            raise RuntimeError("enough")
        return row

    with pytest.raises(RuntimeError, match="enough"):
        beam_search(model, PROMPT, 3, 10, process=fail)
    with pytest.raises(ValueError, match=r"token 5 is not in 0\.\.4"):
        beam_search(model, [1, 5, 2], 3, 10)
    assert model.kv_bytes_in_use == 0
    beam_search(model, PROMPT, 7, 70, eos_ids={EOS})
    assert model.kv_bytes_in_use == 0


NOT_WHOLE = "4", None, 1.5, 2.0, float("nan"), 2**70


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams is 0; it must be a whole number from 1 to 512"),
        *[({"num_beams": value}, "num_beams is .*; it must be a whole number from 1 to 512") for value in NOT_WHOLE],
        ({"num_return": 1.5}, "num_return is 1.5; it must be a whole number from 1 to num_beams, 3"),
        ({"num_return": 0}, "num_return is 0; it must be a whole number from 1 to num_beams, 3"),
        ({"num_return": 4}, "num_return is 4; it must be a whole number from 1 to num_beams, 3"),
        ({"length_penalty": float("nan")}, "length_penalty is nan; it must be from -10 to 10"),
        ({"length_penalty": "x"}, "length_penalty is 'x'; it must be from -10 to 10"),
        ({"length_penalty": 11}, "length_penalty is 11; it must be from -10 to 10"),
        ({"early_stopping": "always"}, "early_stopping is 'always'; choose False, True or 'never'"),
        ({"ids": []}, "the prompt has no tokens"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be a whole number from 1 on"),
        ({"max_tokens": "x"}, "max_tokens is 'x'; it must be a whole number from 1 on"),
        ({"max_tokens": 79}, "prompt of 3 tokens and 79 new ones need 81 positions; this model's context is 80"),
    ],
)
def test_bad_values(model, options, message):
    with pytest.raises(ValueError, match=message):
        beam_search(**{"engine": model, "ids": PROMPT, "num_beams": 3, "max_tokens": 5, **options})
