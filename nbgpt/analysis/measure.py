"""What the benchmarks share: examples are read from a file, their choices are scored, and scores become estimates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ..engine.engine import Engine
from ..tokenizer import Tokenizer
from .estimate import Estimate, Measurement, mean_of
from .examples import Example, encode_pair
from .likelihood import Likelihood, Pair, is_cut, likelihoods

Found = list[list[Likelihood]]
"""For each example, the likelihood of each choice."""


@dataclass(frozen=True)
class Measure:
    """A benchmark: the form of its files, and a rule by which a model is scored."""

    protocol: str  # what is computed, and whose protocol that is
    read: Callable[[str, str], list[Example]]  # (text of a file, its name for messages); raises FormatError
    estimates: Callable[[Sequence[Example], Found], dict[str, Estimate]]
    encode: Callable[[Tokenizer, str, str, bool | None], Pair] = encode_pair  # of a context and a choice

    def run(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        examples: Sequence[Example],
        *,
        bos: bool | None = None,
        progress: Callable[[int, int], object] = lambda done, total: None,
    ) -> Measurement:
        """Measure a model.

        Args:
            engine: runs the model.
            tokenizer: the model's tokenizer.
            examples: at least one, as `read` returns them.
            bos: begin each context with <|endoftext|>; None: as the model's file says.
            progress: called with the number of choices that are read and the number of choices.

        Returns:
            The estimates. A context that is too long for the model loses its beginning, and is counted.

        Raises:
            ValueError: there are no examples, or a choice does not fit the model's context.
        """
        if not examples:
            raise ValueError("examples is empty; give at least one")
        engine.check_open()
        pairs = [self.encode(tokenizer, one.context, choice, bos) for one in examples for choice in one.choices]
        done = 0

        def more(n: int) -> None:
            nonlocal done
            done += n
            progress(done, len(pairs))

        scored = iter(likelihoods(engine, pairs, more))
        found = [list(islice(scored, len(one.choices))) for one in examples]
        cut = (is_cut(engine.config.n_ctx, pair) for pair in pairs)
        n_cut = sum(any(list(islice(cut, len(one.choices)))) for one in examples)
        return Measurement(self.protocol, len(examples), n_cut, self.estimates(examples, found))


def accuracies_by_characters(examples: Sequence[Example], found: Found) -> dict[str, Estimate]:
    """acc by the sum of a choice's log-probabilities, acc_norm by the sum divided by the choice's characters."""
    lengths = [[len(choice) for choice in one.choices] for one in examples]
    return _accuracies(examples, found, lengths)


def accuracies_by_tokens(examples: Sequence[Example], found: Found) -> dict[str, Estimate]:
    """acc by the sum of a choice's log-probabilities, acc_norm by their mean."""
    return _accuracies(examples, found, [[len(one.logprobs) for one in choices] for choices in found])


def accuracy(examples: Sequence[Example], scores: list[list[float]]) -> Estimate:
    """How often the choice with the highest score is the right one; the first of equal ones counts."""
    chosen = [int(np.argmax(one)) for one in scores]
    return mean_of(np.array([number == one.label for number, one in zip(chosen, examples, strict=True)], np.float64))


def sums(found: Found) -> list[list[float]]:
    """Log-probability of each choice."""
    return [[one.total for one in choices] for choices in found]


def _accuracies(examples: Sequence[Example], found: Found, lengths: list[list[int]]) -> dict[str, Estimate]:
    totals = sums(found)
    normed = [
        [total / length for total, length in zip(*pair, strict=True)] for pair in zip(totals, lengths, strict=True)
    ]
    return {"acc": accuracy(examples, totals), "acc_norm": accuracy(examples, normed)}
