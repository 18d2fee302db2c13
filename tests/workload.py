"""Requests of every kind for the tests of the scheduler, and what each writes when it is alone."""

import numpy as np
from models import advance, config_of, open_model, request_of

from nbgpt.abi.layout import PAGE
from nbgpt.engine.request import State
from nbgpt.sampling.params import SamplingParams

N_VOCAB, N_CTX = 61, 300
LARGEST = -(-N_CTX // PAGE)  # pages of a text
CONFIG = config_of(n_vocab=N_VOCAB, n_ctx=N_CTX, tied_embeddings=False)  # tied, it would repeat what it reads
COMMON = np.random.default_rng(3).integers(0, N_VOCAB, N_CTX).tolist()
WILD = SamplingParams(3.0, 0, 1.0, seed=5)
SAMPLERS = [
    WILD,
    SamplingParams(temperature=0),
    SamplingParams(3.0, 20, 0.9, seed=2),
    SamplingParams(3.0, 0, min_p=0.01, repetition_penalty=1.2, seed=1),
    SamplingParams(3.0, 0, typical_p=0.9, epsilon_cutoff=1e-3, seed=1),
    SamplingParams(3.0, 0, mirostat_tau=3.0, seed=1),
    SamplingParams(2.0, 0, dry_multiplier=0.8, no_repeat_ngram_size=3, presence_penalty=0.5, seed=7),
    SamplingParams(3.0, 0, eta_cutoff=1e-3, frequency_penalty=0.3, logit_bias={3: 2.0}, bad_words=((5, 6),), seed=8),
]


def of_pages(file, n_pages):
    """A model whose cache has room for so many pages."""
    return open_model(file, kv_memory=n_pages * open_model(file).cache.page_bytes)


def outcome(request):
    return request.tokens, request.finish_reason, request.measured


def outcome_alone(alone, job):
    alone.scheduler.prefix_cache.clear()
    request = request_of(alone, **job)
    list(alone.tokens(request))
    return outcome(request)


def run_all(model, requests):
    """Let all grow to their ends; what fails is left with its error."""
    for request in requests:
        model.add(request)
    while going_on := [one for one in requests if one.state is not State.FINISHED]:
        advance(model, going_on)
