"""A section of goals.py: several ids a pass, guessed from the text itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count

from figures import Figure, medians, share

from nbgpt import Model, load
from nbgpt.analysis.benchmark import random_weights
from nbgpt.engine.engine import Engine
from nbgpt.engine.kv_cache import Sequence
from nbgpt.sampling.params import DrawParams

REFRAIN = "The old man went down to the sea, and the sea was calm. " * 6
OPENING = "It was a dark and stormy night"
N_TOKENS = 150
GREEDY = DrawParams(0.0, 0, 1.0, 0.0)


def speculation() -> Iterator[Figure]:
    """Prompt lookup against plain decoding, and a pass that checks guesses against one that has none."""
    for n in (2, 1):
        model = load(threads=n)
        for text, prompt, temperature, goal in (
            ("a refrain, greedy", REFRAIN, 0.0, 1.8),
            ("a refrain, temperature 0.3", REFRAIN, 0.3, None),
            ("fresh text, temperature 0.8", OPENING, 0.8, 0.95),
        ):
            got = medians({guesses: telling(model, prompt, temperature, guesses) for guesses in (True, False)}, 25)
            what = f"story-34m int8, {text}, {n} thread{'s' * (n > 1)}: prompt lookup / plain"
            yield share(what, got[True] / got[False], goal, f"{got[True]:.0f} of {got[False]:.0f} tokens/s")
    large = Engine(random_weights("774M", "int8"), 2)
    seconds = medians({n: checking(large, n) for n in (1, 4)}, 9)
    ratio, measured = seconds[4] / seconds[1], f"{seconds[4] * 1e3:.1f} and {seconds[1] * 1e3:.1f} ms"
    yield Figure("774M int8: a pass of 4 rows / of 1", "≤ 1.25", f"{ratio:.2f} ({measured})", ratio <= 1.25)


def telling(model: Model, prompt: str, temperature: float, guesses: bool) -> Callable[[], float]:
    """A call that lets a text go on for N_TOKENS, each time with another seed -> tokens a second."""
    seeds = count()

    def tell() -> float:
        options = {"seed": next(seeds), "temperature": temperature, "ignore_eos": True}
        return model.generate(prompt, max_tokens=N_TOKENS, prompt_lookup=guesses, **options).timing.decode_speed

    return tell


def checking(model: Engine, n: int) -> Callable[[], float]:
    """A call that draws an id after each of n rows of one text, eight times -> seconds of a pass."""
    repeats = 8

    def check() -> float:
        text = Sequence()
        model.runner.append(text, [0] * 16)
        start = time.perf_counter()
        for _ in range(repeats):
            model.next_ids([text] * n, [0] * n, [GREEDY] * n)
        seconds = time.perf_counter() - start
        model.free(text)
        return seconds / repeats

    return check
