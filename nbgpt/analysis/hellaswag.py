"""HellaSwag: which of four endings continues a description? Zellers et al. 2019, by two protocols.

124M has acc 0.2892 and acc_norm 0.3114 by lm-evaluation-harness, 0.2859 and 0.2955 by llm.c's script, which names both
(dev/data/hellaswag.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from .examples import Example, Row, encode_apart, rows
from .measure import Measure, accuracies_by_characters, accuracies_by_tokens

_BRACKETS = re.compile(r"\[.*?\]")


def _read(example_of: Callable[[Row], Example], text: str, where: str) -> list[Example]:
    """Examples of a JSONL file as it is published (hellaswag_val.jsonl)."""
    return [example_of(row) for row in rows(text, where)]


def _of_the_harness(row: Row) -> Example:
    """As lm_eval/tasks/hellaswag/utils.py has it."""
    endings = row.texts("endings")
    context = f"{row.text('ctx_a')} {row.maybe_empty('ctx_b').capitalize()}"
    query = _without_brackets(f"{row.text('activity_label')}: {context}")
    return Example(f"{query} ", tuple(map(_without_brackets, endings)), row.label("label", len(endings)))


def _without_brackets(text: str) -> str:
    """The text without the marks that WikiHow's articles have left."""
    return _BRACKETS.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _of_llm_c(row: Row) -> Example:
    endings = row.texts("endings")
    return Example(f"{row.text('ctx')} ", tuple(endings), row.label("label", len(endings)))


HELLASWAG = {
    "lm-eval": Measure(
        "lm-evaluation-harness, hellaswag: the activity before the context, brackets removed; acc by the sum of an "
        "ending's log-probabilities, acc_norm by the sum divided by its characters",
        partial(_read, _of_the_harness),
        accuracies_by_characters,
    ),
    "llm.c": Measure(
        "llm.c, dev/data/hellaswag.py: the context, a space, and each ending; acc by the sum of an ending's "
        "log-probabilities, acc_norm by their mean over its tokens",
        partial(_read, _of_llm_c),
        accuracies_by_tokens,
        encode_apart,
    ),
}
"""By the name of the protocol."""
