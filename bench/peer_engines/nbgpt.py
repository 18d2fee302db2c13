"""nbgpt, through the calls that its own `bench` makes."""

from pathlib import Path

import numpy as np

from nbgpt.conversion.convert import convert as to_native
from nbgpt.engine.kv_cache import Sequence
from nbgpt.engine.model_runner import ModelRunner
from nbgpt.formats import open_checkpoint
from nbgpt.weights import load

from . import engine


def convert(source: Path, dtype: str, target: Path) -> None:
    """As `python -m nbgpt convert`."""
    to_native(open_checkpoint(source), dtype, target, name=source.name)


class Engine(engine.Engine):
    def __init__(self, path: Path, dtype: str, threads: int) -> None:
        self.model = ModelRunner(load(path), threads)
        self.sequences: list[Sequence] = []
        self.settings = {
            "float32": "the defaults",
            "float16": "the defaults: 16-bit weights, float32 activations",
            "bfloat16": "the defaults: 16-bit weights and activations, float32 sums",
            "int8": "the defaults: weights in groups of 64, 8-bit activations (16-bit for the logits)",
            "int4": "the defaults: weights in groups of 32, an int8 token matrix, 8-bit activations",
        }[dtype] + "; float32 KV cache; logits of the last position"

    def clear(self, batch: int) -> None:
        for sequence in self.sequences:
            self.model.cache.truncate(sequence, 0)
        self.sequences = [Sequence() for _ in range(batch)]

    def prompt(self, ids: list[int]) -> np.ndarray:
        return self.model.append(self.sequences[0], ids)

    def generate(self, ids: list[list[int]]) -> np.ndarray:
        for step in zip(*ids, strict=True):
            logits = self.model.decode(self.sequences, step)
        return logits
