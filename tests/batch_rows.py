"""Rows for the tests of batches."""

import json

WORDS = [
    "the",
    "cat",
    "saw",
    "a",
    "dog",
    "that",
    "ran",
    "over",
    "the",
    "hill",
    "and",
    "it",
    "was",
    "a",
    "dark",
    "night",
]


def prompts(n):
    """Rows of mixed lengths, some of them equal."""
    return [{"n": i % 4, "text": " ".join(WORDS[: 1 + 5 * i % 12])} for i in range(n)]


def read(path):
    """The objects of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
