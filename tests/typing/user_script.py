"""What a user might write, for type checkers: tests/typing/test_user_script.py runs them on it."""

import asyncio
from pathlib import Path

import numpy as np

import nbgpt


def report(model: nbgpt.Model, lines: list[str]) -> dict[str, float]:
    scores: list[nbgpt.Score] = model.score_batch(lines)
    return {line: score.total for line, score in zip(lines, scores, strict=True)}


def nearest(model: nbgpt.Model, query: str, lines: list[str]) -> str:
    vectors: np.ndarray = model.embed([query, *lines], "mean", layer=-1)
    return lines[int(np.argmax(vectors[1:] @ vectors[0]))]


async def tell(model: nbgpt.Model, opening: str) -> str:
    pieces = [piece async for piece in model.astream(opening, max_tokens=20, seed=1)]
    ended: nbgpt.Completion = await model.agenerate(opening + "".join(pieces), stop=["."], top_p=0.9)
    return ended.text


def main(path: Path) -> None:
    with nbgpt.load("story-34m", dtype="int8", threads=2) as model:
        one: nbgpt.Completion = model.generate("The sea", max_tokens=8, logprobs=2, logit_bias={13: -1.0})
        print(one.text.upper(), one.usage.total_tokens, [token.logprob for token in one.logprobs or []])
        prompts = [nbgpt.Prompt("The sea", seed=3), nbgpt.Prompt("A night", greedy=True)]
        several: list[nbgpt.Completion] = model.generate(prompts, max_tokens=8)
        samples: list[nbgpt.Completion] = model.generate("The sea", n=2)
        for piece in model.stream(model.encode("Once upon"), temperature=0.7, top_k=20):
            print(piece, end="")
        lines = [str(text) for text in (*several, *samples)]
        print(report(model, lines), nearest(model, "waves", lines), model.logits([1, 2]).shape)
        print([beam.score for beam in model.beam_search("The sea", 2)], asyncio.run(tell(model, "At last")))
        with model.session() as session:
            print(session.generate("The sea", max_tokens=2).finish_reason, model.trace("The sea").attention.shape)
