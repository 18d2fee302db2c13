"""The protocols of the benchmarks in float64, an example at a time: what the measures are compared with."""

import math

import numpy as np
import reference
from folders import TOKENIZER, text_config
from models import random_params

CONFIG = text_config(n_ctx=100)
PARAMS = random_params(CONFIG)


def log_likelihood(context, continuation):
    """(sum, greedy) of ids after ids, the context cut at its beginning as lm-evaluation-harness cuts it."""
    ids = [*context, *continuation][-(CONFIG.n_ctx + 1) :]
    logits = reference.gpt2(np.array(ids[:-1]), PARAMS, CONFIG)[-len(continuation) :]
    logs = np.log(reference.softmax(logits))
    total = math.fsum(log[token] for log, token in zip(logs, continuation, strict=True))
    return total, bool((logits.argmax(axis=1) == continuation).all())


def encode(context, continuation):
    """Encoded together, whitespace moved to the continuation."""
    before = TOKENIZER.encode(context.rstrip())
    return before, TOKENIZER.encode(context + continuation)[len(before) :]


def share(hits):
    """Mean and standard error of ones and zeros."""
    mean = sum(hits) / len(hits)
    return mean, math.sqrt(mean * (1 - mean) / (len(hits) - 1))


def check(estimate, expected, tolerance=1e-9):
    value, error = expected
    assert math.isclose(estimate.value, value, rel_tol=tolerance, abs_tol=1e-12)
    assert math.isclose(estimate.standard_error, error, rel_tol=tolerance, abs_tol=1e-12)
