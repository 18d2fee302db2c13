"""Multiple choice: which of several continuations a model finds likeliest, and how often that is the right one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ..engine.engine import Engine
from ..tokenizer import Tokenizer
from .estimate import Estimate, Measurement, mean_of
from .examples import Example, encode_pair, rows
from .likelihood import Likelihood, Pair, is_cut, likelihoods

Encode = Callable[[Tokenizer, str, str, bool | None], Pair]
Norm = Literal["characters", "tokens"]
PROTOCOL = (
    "lm-evaluation-harness, multiple_choice: the context, a space, and each choice; acc by the sum of the choice's "
    "log-probabilities, acc_norm by the sum divided by its characters"
)


def read_choices(text: str, where: str) -> list[Example]:
    """Examples of a JSONL file: {"context": ..., "choices": [...], "label": number of the right one, from 0}.

    Args:
        text: of the file.
        where: its name, for messages.

    Raises:
        FormatError: a line is of another form.
    """
    examples = []
    for row in rows(text, where):
        choices = row.texts("choices")
        examples.append(Example(f"{row.maybe_empty('context')} ", tuple(choices), row.label("label", len(choices))))
    return examples


def choices(
    engine: Engine,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    *,
    bos: bool | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Measurement:
    """How often the likeliest choice is the right one: see PROTOCOL.

    Args:
        engine: runs the model.
        tokenizer: the model's tokenizer.
        examples: at least one.
        bos: begin each context with <|endoftext|>; None: as the model's file says.
        progress: called with the number of choices that are read and the number of choices.

    Returns:
        "acc" and "acc_norm".

    Raises:
        ValueError: a choice does not fit the model's context, or has no tokens.
    """
    found, n_truncated = score_examples(engine, tokenizer, examples, encode_pair, bos, progress)
    return Measurement(PROTOCOL, len(examples), n_truncated, accuracies(examples, found, "characters"))


def score_examples(
    engine: Engine,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    encode: Encode,
    bos: bool | None,
    progress: Callable[[int, int], object],
) -> tuple[list[list[Likelihood]], int]:
    """The likelihood of each choice of each example; and how many examples lost the beginning of their context."""
    engine.check_open()
    pairs = [encode(tokenizer, one.context, choice, bos) for one in examples for choice in one.choices]
    done = 0

    def more(n: int) -> None:
        nonlocal done
        done += n
        progress(done, len(pairs))

    found = iter(likelihoods(engine, pairs, more))
    cut = iter([is_cut(engine.config.n_ctx, pair) for pair in pairs])
    n_truncated = sum(any([next(cut) for _ in one.choices]) for one in examples)
    return [[next(found) for _ in one.choices] for one in examples], n_truncated


def accuracies(examples: Sequence[Example], found: list[list[Likelihood]], norm: Norm) -> dict[str, Estimate]:
    """acc by the sums of log-probabilities, acc_norm by sums that are divided by the length of each choice."""
    sums = [[one.total for one in likelihood] for likelihood in found]
    if norm == "tokens":
        normed = [[one.mean for one in likelihood] for likelihood in found]
    else:
        normed = [
            [total / len(choice) for total, choice in zip(totals, example.choices, strict=True)]
            for totals, example in zip(sums, examples, strict=True)
        ]
    return {"acc": accuracy(examples, sums), "acc_norm": accuracy(examples, normed)}


def accuracy(examples: Sequence[Example], scores: list[list[float]]) -> Estimate:
    """How often the choice with the highest score is the right one; the first of equal ones counts."""
    chosen = [int(np.argmax(one)) for one in scores]
    return mean_of(np.array([number == one.label for number, one in zip(chosen, examples, strict=True)], np.float64))
