"""LAMBADA: can a model guess the last word of a passage? Paperno et al. 2016, in OpenAI's version of the texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..engine.engine import Engine
from ..formats import FormatError
from ..tokenizer import Tokenizer
from .choices import score_examples
from .estimate import Measurement, exp_of, mean_of
from .examples import Example, encode_pair, rows

PROTOCOL = (
    "lm-evaluation-harness, lambada_openai: the last word after a space; acc if each of its tokens is the likeliest "
    "one, perplexity of whole words"
)


def read_lambada(text: str, where: str) -> list[Example]:
    """Examples of a JSONL file, {"text": ...} a line, as EleutherAI/lambada_openai and OpenAI's lambada_test.jsonl.

    The last word is what follows the last space, punctuation included.

    Args:
        text: of the file.
        where: its name, for messages.

    Raises:
        FormatError: a line is of another form, or has no two words.
    """
    examples = []
    for row in rows(text, where):
        passage = row.text("text")
        context, space, word = passage.rpartition(" ")
        if not context.strip() or not word.strip():
            raise FormatError(f"{row.where}: 'text' is {passage!r:.60}; wanted are words, the last one after a space")
        examples.append(Example(context + space, (word,)))
    return examples


def lambada(
    engine: Engine,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    *,
    bos: bool | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Measurement:
    """Accuracy and perplexity of last words: see PROTOCOL. Arguments and errors as for `choices.choices`."""
    found, n_truncated = score_examples(engine, tokenizer, examples, encode_pair, bos, progress)
    hits = np.array([one.is_greedy for [one] in found], np.float64)
    nll = np.array([-one.total for [one] in found])
    estimates = {"acc": mean_of(hits), "perplexity": exp_of(mean_of(nll))}
    return Measurement(PROTOCOL, len(examples), n_truncated, estimates)
