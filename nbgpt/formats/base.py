"""What every reader returns; all of them raise `FormatError`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..config import GPT2Config
from ..validation import FormatError as FormatError  # for its readers

CONVERT_ORIGINAL = "convert the model's original folder instead"
"""What to do with a GGUF file that does not have its whole vocabulary."""


@dataclass(frozen=True)
class Tensor:
    """A tensor that still lies in its file."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]  # -> float16 or float32 [shape]; bfloat16 is widened to float32
    place: Hashable = None  # where it lies: tensors of one place are equal; None: not known

    def transposed(self) -> Tensor:
        """This one [n_out, n_in] as [n_in, n_out]."""
        return Tensor(self.shape[::-1], lambda: np.ascontiguousarray(self.read().T))


@dataclass(frozen=True)
class Checkpoint:
    """A model in somebody else's format, ready to be converted."""

    config: GPT2Config
    tensors: dict[str, Tensor]
    files: list[Path]  # the weight files, in the order in which they are hashed
    tokenizer_files: dict[str, Path] = field(default_factory=dict)  # what vocabulary.py reads, by its names of them
    labels: tuple[str, ...] = ()  # names of a classifier's labels in their order, if the folder gives them
    notes: tuple[str, ...] = ()  # what its owner should know about how it was read, a sentence each


def listed(names: Collection[str]) -> str:
    """The first few of the names, and how many more there are."""
    few = ", ".join(f"{name!r:.60}" for name, _ in zip(names, range(3), strict=False))
    return few if len(names) <= 3 else f"{few} and {len(names) - 3} more"
