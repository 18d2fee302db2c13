"""Contrastive search against a slow twin that reads each candidate's whole text with the reference."""

from dataclasses import replace

import numpy as np
import pytest
import reference
from models import config_of, native_params, open_model, random_params, request_of, write_native

from nbgpt.decoding.contrastive_search import contrastive_search
from nbgpt.engine.kv_cache import Sequence
from nbgpt.sampling.params import SamplingParams

CONFIG = config_of(n_ctx=180, tied_embeddings=False)  # tied, it would repeat what it reads
PARAMS = random_params(CONFIG)
PARAMS["ln_f.weight"] *= 0.3  # probabilities and similarities of about the same size
PROMPT = [7, 3, 11]
NEVER = CONFIG.n_vocab  # an end of text that no model draws


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return open_model(write_native(tmp_path_factory.mktemp("models") / "m.safetensors", PARAMS, CONFIG, "float32"), 2)


def states(ids, params=PARAMS, config=CONFIG):  # [n] -> [n, n_embd]
    """After ln_f: the logits of a head that changes nothing."""
    identity = {**params, "lm_head.weight": np.eye(config.n_embd)}
    return reference.gpt2(np.array(ids), identity, replace(config, tied_embeddings=False))


def twin(prompt, max_tokens, alpha, k):
    """Su et al. 2022, equation 5, word for word."""
    text = list(prompt)
    for _ in range(max_tokens):
        past = states(text)
        p = reference.softmax(PARAMS["lm_head.weight"] @ past[-1])
        scores = {}
        for token in np.argsort(-p)[:k].tolist():
            h = states([*text, token])[-1]
            likeness = max(h @ h_j / (np.linalg.norm(h) * np.linalg.norm(h_j)) for h_j in past)
            scores[token] = (1 - alpha) * p[token] - alpha * likeness
        text.append(max(scores, key=scores.get))
    return text[len(prompt) :]


@pytest.mark.parametrize("k", [2, 4, 9])
@pytest.mark.parametrize("alpha", [0.2, 0.6, 1.0])
def test_it_is_the_twin(model, alpha, k):
    assert list(contrastive_search(model, PROMPT, 20, alpha=alpha, k=k)) == twin(PROMPT, 20, alpha, k)


@pytest.mark.parametrize("n_prompt", [1, 60, 64, 150])
def test_over_borders_of_pages_and_passes(model, rng, n_prompt):
    prompt = rng.integers(0, CONFIG.n_vocab, n_prompt).tolist()
    assert list(contrastive_search(model, prompt, 8, alpha=0.6, k=4)) == twin(prompt, 8, 0.6, 4)


@pytest.mark.parametrize("k", [4, 5, 61])
@pytest.mark.parametrize("alpha", [0.6, 1.0])
def test_a_banned_id_is_no_candidate(tmp_path, alpha, k):
    """Not even where there are fewer ids than candidates, and likelihood does not count."""
    model = open_model(write_native(tmp_path / "m.safetensors", PARAMS, CONFIG, "float32"))
    present = [5, 20, 21, 40]
    model.runner.forbid(np.setdiff1d(np.arange(CONFIG.n_vocab), present))
    found = list(contrastive_search(model, PROMPT, 12, alpha=alpha, k=k))
    assert {*found} <= {*present}
    assert found == list(contrastive_search(model, PROMPT, 12, alpha=alpha, k=4))


@pytest.mark.parametrize(("alpha", "k"), [(0, 5), (0.6, 1)])
def test_greedy_is_a_special_case(model, alpha, k):
    greedy = list(model.tokens(request_of(model, PROMPT, 40, SamplingParams(temperature=0))))
    assert list(contrastive_search(model, PROMPT, 40, alpha=alpha, k=k)) == greedy


def test_alpha_makes_a_difference(model):
    texts = {tuple(contrastive_search(model, PROMPT, 20, alpha=alpha, k=9)) for alpha in (0, 0.2, 0.6, 1)}
    assert len(texts) == 4


def test_the_end_of_text_ends_it(model):
    everything = list(contrastive_search(model, PROMPT, 20, alpha=0.6, k=4))
    end = everything[9]
    ended = contrastive_search(model, PROMPT, 20, alpha=0.6, k=4, eos_ids={end})
    assert list(ended) == everything[: everything.index(end)]
    assert model.kv_bytes_in_use == 0


def test_the_context_can_be_filled_to_the_last_position(model, rng):
    prompt = rng.integers(0, CONFIG.n_vocab, 175).tolist()
    assert len(list(contrastive_search(model, prompt, 5, alpha=0.6, k=4))) == 5


def test_pages_are_given_back(model):
    ids = contrastive_search(model, PROMPT, 20, alpha=0.6, k=4)
    next(ids)
    assert model.kv_bytes_in_use > 0
    del ids
    assert model.kv_bytes_in_use == 0
    with pytest.raises(ValueError, match=r"token 61 is not in 0\.\.60"):
        next(contrastive_search(model, [1, 61], 3, alpha=0.6, k=4))
    assert model.kv_bytes_in_use == 0


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "int4"])
def test_states_are_those_of_the_rows_that_want_logits(tmp_path, rng, dtype):
    """In their order, and whatever the planes of their logits."""
    config = config_of()
    model = open_model(write_native(tmp_path / "m.safetensors", random_params(config), config, dtype))
    text, wants = rng.integers(0, config.n_vocab, 40).tolist(), [5, 39, 0, 17, 6]
    logits, found = model.outputs(text, [Sequence()] * 40, wants)
    np.testing.assert_array_equal(logits, model.runner.forward(text, [Sequence()] * 40, wants))
    expected = states(text, native_params(model.weights), config)[wants]
    errors = np.abs(found - expected).max(axis=1) / np.abs(expected).max()
    assert np.median(errors) <= 1e-4
    assert errors.max() <= 0.03  # a quantized activation may round the other way


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, "alpha is -0.1; it must be from 0 to 1"),
        ({"alpha": 1.01}, "alpha is 1.01; it must be from 0 to 1"),
        ({"alpha": float("nan")}, "alpha is nan; it must be from 0 to 1"),
        ({"alpha": "x"}, "alpha is 'x'; it must be from 0 to 1"),
        ({"k": 2.0}, "k is 2.0; it must be a whole number from 1 to 61"),
        ({"k": 0}, "k is 0; it must be a whole number from 1 to 61"),
        ({"k": 62}, "k is 62; it must be a whole number from 1 to 61"),
        ({"ids": []}, "the prompt has no tokens"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be a whole number from 1 on"),
        ({"max_tokens": 1.5}, "max_tokens is 1.5; it must be a whole number from 1 on"),
        ({"max_tokens": 178}, "prompt of 3 tokens and 178 new ones need 181 positions; this model's context is 180"),
    ],
)
def test_bad_values(model, options, message):
    with pytest.raises(ValueError, match=message):
        contrastive_search(**{"engine": model, "ids": PROMPT, "max_tokens": 5, "alpha": 0.6, "k": 4, **options})
