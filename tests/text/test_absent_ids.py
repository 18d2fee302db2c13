"""Ids of the model that its vocabulary does not have: never chosen, and measured as transformers does."""

import json

import numpy as np
import pytest
from folders import TOKENIZER, ballot, write_folder
from models import read

import nbgpt
from nbgpt.analysis.perplexity import perplexity

N = TOKENIZER.n_vocab
ADDED = {
    "a padded tail": {},
    "holes": {" covid19": N + 3, "<|user|>": N + 4},
}
"""Words that are added to the vocabulary of N tokens."""
N_VOCAB = N + 8
GREEDY = {"greedy": True}
WILD = {"temperature": 1.0, "top_k": 0}
SAMPLINGS = {
    "greedy": GREEDY,
    "temperature": WILD,
    "top-k": {"top_k": 3},
    "top-p": {**WILD, "top_p": 0.9},
    "min-p": {**WILD, "min_p": 0.01},
    "typical": {**WILD, "typical_p": 0.9},
    "epsilon": {**WILD, "epsilon_cutoff": 1e-4},
    "eta": {**WILD, "eta_cutoff": 1e-4},
    "mirostat": {"mirostat_tau": 3.0},
    "penalties": {**GREEDY, "repetition_penalty": 1.3, "frequency_penalty": 0.5, "dry_multiplier": 0.8},
    "min_tokens": {**GREEDY, "min_tokens": 20},
    "ignore_eos": {**WILD, "ignore_eos": True},
    "logprobs": {**WILD, "logprobs": 3},
    "a processor": {**WILD, "logits_processors": [lambda ids, logits: logits]},
    "prompt lookup": {**GREEDY, "prompt_lookup": True},
}


@pytest.fixture(scope="module", params=ADDED)
def model(request, tmp_path_factory):
    """The absent ids are the likeliest by far."""
    folder = tmp_path_factory.mktemp("models") / request.param.replace(" ", "-")
    present = np.isin(np.arange(N_VOCAB), [*range(N), *ADDED[request.param].values()])
    logits = np.where(present, np.random.default_rng(0).standard_normal(N_VOCAB), 9).astype(np.float32)
    write_folder(folder, *ballot(logits))
    (folder / "added_tokens.json").write_text(json.dumps(ADDED[request.param]))
    model = nbgpt.load(folder, dtype="float32")
    np.testing.assert_array_equal(model.engine.absent_ids, np.flatnonzero(~present))
    with model:
        yield model


@pytest.fixture
def logits(model):
    """float32 [n_vocab] after any text."""
    return model.logits([1])[0]


def check(model, tokens):
    assert tokens
    assert not {*tokens} & {*model.engine.absent_ids.tolist()}


@pytest.mark.parametrize("options", SAMPLINGS.values(), ids=SAMPLINGS)
def test_no_sampler_chooses_one(model, options):
    for one in model.generate([1, 2], n=4, seed=1, max_tokens=40, **{"ignore_eos": True, **options}):
        check(model, one.tokens)
        model.tokenizer.decode(one.tokens)


def test_greedy_takes_the_likeliest_of_the_others(model, logits):
    logits[model.engine.absent_ids] = -np.inf
    assert model.generate([1], greedy=True, max_tokens=3).tokens == [logits.argmax()] * 3


def test_sessions_and_drafts(model):
    with model.session() as session:
        check(model, session.generate([1, 2], seed=1, max_tokens=40, ignore_eos=True).tokens)
    options = {"seed": 1, "max_tokens": 40, "ignore_eos": True, **WILD}
    drafted = model.generate([1, 2], draft_model=model, **options)
    assert drafted.tokens == model.generate([1, 2], **options).tokens


def test_beams(model, logits):
    logits = logits.astype(np.float64)
    logits[model.engine.absent_ids] = -np.inf
    logits[[*model.tokenizer.eos_ids]] = -np.inf  # unlikely enough
    found = model.beam_search([1], 20, max_tokens=2, num_return=20)
    for one in found:
        check(model, one.tokens or [1])
    assert found[0].tokens == [logits.argmax()] * 2


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_contrastive_search(model, alpha):
    check(model, model.contrastive_search([1], alpha=alpha, k=50, max_tokens=20).tokens)


def test_what_is_measured_is_the_models(model, logits):
    """Logits, scores, logprobs and perplexity count the absent ids, as transformers does."""
    assert logits[model.engine.absent_ids].min() > 8
    log_p = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    text = [1, 2, 3, 4, 5]
    np.testing.assert_allclose(model.score(text).logprobs[1:], log_p[text[1:]], rtol=1e-5)
    drawn = model.generate([1], seed=1, max_tokens=5, logprobs=2, ignore_eos=True)
    np.testing.assert_allclose([one.logprob for one in drawn.logprobs], log_p[drawn.tokens], rtol=1e-5)
    found = perplexity(model.engine, text * 10, protocol="strided", window=20, stride=10)
    np.testing.assert_allclose(found.nll, -log_p[(text * 10)[1:]].mean(), rtol=1e-5)
    np.testing.assert_array_equal(read(model.engine, text), model.logits(text))
