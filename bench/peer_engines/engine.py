"""What each engine is asked to do, by llama-bench's method: ids in, logits after the last of them out.

Tokenizing and sampling stand outside, and so does `clear`: only `prompt` and `generate` are timed.
"""

from abc import ABC, abstractmethod

import numpy as np

PROMPT = 512
"""Tokens of a prompt (pp)."""
STEPS = 128
"""Tokens that are generated, from an empty context (tg)."""
BATCH = 8
"""Sequences at once, where it is not one."""


class Engine(ABC):
    """A model, loaded into an engine with a number of threads. The constructor takes (file, dtype, threads)."""

    settings: str
    """How it runs, in words for the report."""

    @abstractmethod
    def clear(self, batch: int) -> None:
        """Make ready for `batch` sequences without a past."""

    @abstractmethod
    def prompt(self, ids: list[int]) -> np.ndarray | None:
        """Read ids at once -> logits float32 [n_vocab] after the last of them."""

    @abstractmethod
    def generate(self, ids: list[list[int]]) -> np.ndarray | None:
        """Read ids [batch][n] one step after another -> logits float32 [batch, n_vocab] after the last."""

    def logits(self, ids: list[list[int]]) -> list[np.ndarray]:
        """Logits after ids [batch][n] by every way that is timed, float32 [batch, n_vocab] each."""
        prompts = []
        for sequence in ids:
            self.clear(1)
            prompts.append(self.prompt(sequence).copy())
        self.clear(len(ids))
        return [np.stack(prompts), self.generate(ids).copy()]
