"""LAMBADA: can a model guess the last word of a passage? Paperno et al. 2016, in OpenAI's version of the texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..formats import FormatError
from .estimate import Estimate, exp_of, mean_of
from .examples import Example, rows
from .measure import Found, Measure


def _read(text: str, where: str) -> list[Example]:
    """Examples of a JSONL file, {"text": ...} a line, as EleutherAI/lambada_openai and OpenAI's lambada_test.jsonl.

    The last word is what follows the last space, punctuation included.
    """
    examples = []
    for row in rows(text, where):
        passage = row.text("text")
        context, space, word = passage.rpartition(" ")
        if not context.strip() or not word.strip():
            raise FormatError(f"{row.where}: 'text' is {passage!r:.60}; wanted are words, the last one after a space")
        examples.append(Example(context + space, (word,)))
    return examples


def _estimates(examples: Sequence[Example], found: Found) -> dict[str, Estimate]:
    hits = np.array([one.is_greedy for [one] in found], np.float64)
    nll = np.array([-one.total for [one] in found])
    return {"acc": mean_of(hits), "perplexity": exp_of(mean_of(nll))}


LAMBADA = Measure(
    "lm-evaluation-harness, lambada_openai: the last word after a space; acc if each of its tokens is the likeliest "
    "one, perplexity of whole words",
    _read,
    _estimates,
)
