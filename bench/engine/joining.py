"""A section of goals.py: how long texts that are being continued wait while a long prompt joins them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median, quantiles

import numpy as np
from figures import Figure

from nbgpt.analysis.benchmark import random_weights
from nbgpt.engine import request as request_module
from nbgpt.engine.engine import Engine
from nbgpt.engine.request import Request
from nbgpt.sampling.params import SamplingParams

N_TEXTS, N_PROMPT, N_JOINS = 8, 900, 20
N_ALONE = 40  # steps without a join that are measured before each join


def joining() -> Iterator[Figure]:
    """Eight texts decode and a prompt of 900 tokens joins: the time between two steps, of one token each."""
    for dtype in ("int8", "float16"):
        engine = Engine(random_weights("124M", dtype), 2)
        alone, joined = gaps(engine)
        ratio = quantiles(joined, n=20)[-1] / median(alone)
        measured = f"{ratio:.2f} ({quantiles(joined, n=20)[-1] * 1e3:.1f} and {median(alone) * 1e3:.1f} ms)"
        yield Figure(f"124M {dtype}: p95 while a prompt joins / median without", "≤ 3", measured, ratio <= 3)


def gaps(engine: Engine) -> tuple[list[float], list[float]]:
    """Seconds of steps of the texts alone, and of steps in which a prompt is read too."""
    random = np.random.default_rng(0)
    held, alone, joined = request_module.CALL_SECONDS, list[float](), list[float]()
    request_module.CALL_SECONDS = 0.0  # a multi-step decode would hide what a single step takes
    try:
        texts = [new_request(engine, random, 4, N_JOINS * (N_ALONE + 60) + 10) for _ in range(N_TEXTS)]
        for _ in range(10):
            seconds_of_step(engine)
        for _ in range(N_JOINS):
            alone += [seconds_of_step(engine) for _ in range(N_ALONE)]
            prompt = new_request(engine, random, N_PROMPT, 1)
            while not prompt.finish_reason:
                joined.append(seconds_of_step(engine))
        engine.retire(texts)
    finally:
        request_module.CALL_SECONDS = held
    return alone, joined


def new_request(engine: Engine, random: np.random.Generator, n_prompt: int, max_tokens: int) -> Request:
    """A request that takes part from the next step on."""
    ids = random.integers(0, engine.config.n_vocab, n_prompt).tolist()
    params = SamplingParams(seed=0, max_tokens=max_tokens, overflow="truncate_left")
    request = Request(engine.config, ids, params)
    engine.add(request)
    return request


def seconds_of_step(engine: Engine) -> float:
    """Let every request take a step."""
    start = time.perf_counter()
    engine.scheduler.step()
    return time.perf_counter() - start
