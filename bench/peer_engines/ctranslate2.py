"""CTranslate2, whose Python interface has no single step: generation draws each next token itself, the likeliest.

So its tg holds a search for the largest of 50257 logits a token besides, less than a hundredth of the time, and goes on
from its own tokens instead of random ones. On AMD processors it chooses oneDNN for its matrices; Intel's library
(CT2_USE_MKL=1) was no faster there in float32 and five times slower in int8. An empty `end_token` never ends.
"""

import json
from pathlib import Path

import ctranslate2
import numpy as np
from ctranslate2.converters import TransformersConverter

from . import engine

ONE_ID = {"include_prompt_in_result": False, "max_length": 1, "min_length": 1}


def convert(source: Path, dtype: str, target: Path) -> None:
    """As `ct2-transformers-converter --quantization DTYPE`."""
    converter = TransformersConverter(str(source), copy_files=["vocab.json", "merges.txt"])
    converter.convert(str(target), quantization=dtype)


class Engine(engine.Engine):
    def __init__(self, path: Path, dtype: str, threads: int) -> None:
        self.model = ctranslate2.Generator(str(path), compute_type=dtype, inter_threads=1, intra_threads=threads)
        self.tokens = json.loads((path / "vocabulary.json").read_text())
        self.settings = (
            f"compute type {self.model.compute_type}, the matrix library of its choice; pp by generate_batch of "
            "one id, which computes the logits of the last position alone; tg by generate_batch, greedy, from one id"
        )

    def clear(self, batch: int) -> None:
        pass  # generate_batch begins anew

    def prompt(self, ids: list[int]) -> None:
        self.model.generate_batch([[self.tokens[i] for i in ids]], **ONE_ID)

    def generate(self, ids: list[list[int]]) -> None:
        n = len(ids[0])
        starts = [[self.tokens[sequence[0]]] for sequence in ids]
        results = self.model.generate_batch(starts, include_prompt_in_result=False, max_length=n, min_length=n)
        for result in results:
            if len(result.sequences_ids[0]) != n:
                raise RuntimeError(f"CTranslate2 generated {len(result.sequences_ids[0])} tokens instead of {n}")

    def logits(self, ids: list[list[int]]) -> list[np.ndarray]:
        """By forward_batch, since generate_batch keeps its logits to itself."""
        return [np.array(self.model.forward_batch(ids))[:, -1]]
