"""A section of goals.py: prompts that each have options of their own, in one call and one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator

from figures import Figure, medians

import nbgpt
from nbgpt import Model, Prompt

N_PROMPTS = 48
OPENINGS = ("Once upon a time", "The dog", "A small house stood", "In the morning, she")


def mixed() -> Iterator[Figure]:
    """Prompts whose lengths, temperatures, truncations and seeds all differ: `Model.generate` of all, and of each."""
    model = nbgpt.load(dtype="int8", threads=2)
    prompts = [
        Prompt(
            OPENINGS[i % 4], max_tokens=10 + i % 40, temperature=0.5 + i % 5 / 5, top_k=20 + i, min_p=i % 3 / 50, seed=i
        )
        for i in range(N_PROMPTS)
    ]
    together = [one.text for one in model.generate(prompts)]
    if together != [model.generate([one])[0].text for one in prompts]:
        raise RuntimeError("a prompt has another text beside others")
    got = medians(
        {"together": lambda: speed(model, [prompts]), "alone": lambda: speed(model, [[one] for one in prompts])}, 5
    )
    measured = f"{got['together'] / got['alone']:.2f} ({got['together']:.0f} and {got['alone']:.0f} prompts/s)"
    reached = got["together"] >= 3 * got["alone"]
    yield Figure(f"story-34m int8, {N_PROMPTS} prompts: one call / a call each", "≥ 3", measured, reached)


def speed(model: Model, calls: list[list[Prompt]]) -> float:
    """Prompts a second."""
    start = time.perf_counter()
    for prompts in calls:
        model.generate(prompts)
    return N_PROMPTS / (time.perf_counter() - start)
