"""Multiple choice, for examples of one's own: which of several continuations does a model find likeliest?"""

from __future__ import annotations

from .examples import Example, rows
from .measure import Measure, accuracies_by_characters


def _read(text: str, where: str) -> list[Example]:
    """Examples of a JSONL file: {"context": ..., "choices": [...], "label": number of the right one, from 0}."""
    examples = []
    for row in rows(text, where):
        choices = row.texts("choices")
        examples.append(Example(f"{row.maybe_empty('context')} ", tuple(choices), row.label("label", len(choices))))
    return examples


CHOICES = Measure(
    "lm-evaluation-harness, multiple_choice: the context, a space, and each choice; acc by the sum of the choice's "
    "log-probabilities, acc_norm by the sum divided by its characters",
    _read,
    accuracies_by_characters,
)
