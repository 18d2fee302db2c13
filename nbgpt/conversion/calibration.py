"""Calibration data: the second moments of each matrix's inputs while the model reads a text.

The float model runs layer by layer over all of the text, so that only one layer's moments are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..abi.layout import PAGE
from ..engine.engine import Engine
from ..engine.kv_cache import Sequence
from ..engine.model_runner import MAX_ROWS
from ..formats import Checkpoint
from ..partial import scratch_folder
from ..progress import progress_bar
from ..sampling.params import DrawParams
from ..sampling.rng import uniform
from ..weights import load, tokenizer_of
from .convert import convert

N_TOKENS = 16384
"""Tokens that calibration reads: more made no measurable difference (see bench/NOTES.md)."""
_KV_LIMIT = 1 << 30  # bytes of KV cache that writing several texts at once may take

_INPUTS = {
    "attn.c_attn.weight": "ln_1",
    "attn.c_proj.weight": "attended",
    "mlp.c_fc.weight": "ln_2",
    "mlp.c_proj.weight": "inner",
}
"""The buffer that each matrix of a layer reads."""

Progress = Callable[[int], object]
"""Called with the number of tokens that were written or read since the last call."""


def write_text(
    engine: Engine, bos_id: int, n_tokens: int = N_TOKENS, progress: Progress = lambda n: None
) -> list[list[int]]:
    """Texts that the model writes itself at temperature 1 from bos_id: whole contexts, at least n_tokens."""
    n_ctx = engine.config.n_ctx
    n_texts = -(-n_tokens // n_ctx)
    kv_bytes = engine.cache.page_bytes * (n_ctx // PAGE + 1)
    at_once = max(1, min(n_texts, _KV_LIMIT // kv_bytes))
    texts: list[list[int]] = []
    for first in range(0, n_texts, at_once):
        numbers = range(first, min(first + at_once, n_texts))
        sequences = [Sequence() for _ in numbers]
        batch = [[bos_id] for _ in numbers]
        for position in range(n_ctx - 1):
            params = [DrawParams(1.0, 0, 1.0, uniform(0, number, position)) for number in numbers]
            drawn = engine.next_ids(sequences, [text[-1] for text in batch], params)
            for text, token in zip(batch, drawn, strict=True):
                text.append(token)
            progress(len(batch))
        for sequence in sequences:
            engine.free(sequence)
        texts += batch
    return texts


def cut(ids: list[int], n_ctx: int, n_tokens: int = N_TOKENS) -> list[list[int]]:
    """The beginning of a text, n_tokens up to a whole context, as texts that fit the context."""
    return [ids[start : start + n_ctx] for start in range(0, min(len(ids), n_tokens), n_ctx)]


class Observer:
    """The second moments of each matrix's inputs, while the model reads some texts; asked for layer after layer."""

    def __init__(self, engine: Engine, texts: list[list[int]], progress: Progress = lambda n: None) -> None:
        """texts: each as long as the context at most. progress: called with tokens read, in every layer."""
        self.engine = engine
        self.texts = texts
        self.progress = progress
        self.layer = -1
        self.moments: dict[str, np.ndarray] = {}
        self.streams: list[np.ndarray] = []  # the residual stream of each text before the next layer

    def __call__(self, layer: int, name: str) -> np.ndarray:
        """X.T @ X, float32 [n_in, n_in], for the inputs X of a matrix."""
        while self.layer < layer:
            self._next_layer()
        return self.moments[name]

    def _next_layer(self) -> None:
        self.layer += 1
        matrices = self.engine.config.matrices
        self.moments = {name: np.zeros((n_in, n_in), np.float32) for name, (n_in, _) in matrices.items()}
        streams = []
        for number, text in enumerate(self.texts):
            before = self.streams[number] if self.streams else None
            streams.append(self._read(text, before))
            self.progress(len(text))
        self.streams = streams

    def _read(self, text: list[int], before: np.ndarray | None) -> np.ndarray:
        """One layer over one text; returns the residual stream after it."""
        sequence, after = Sequence(), []
        parts = (0 if before is None else 2 * self.layer + 1, 2 * self.layer + 3)
        for start in range(0, len(text), MAX_ROWS):
            rows = slice(start, start + MAX_ROWS)
            seen = self.engine.run_parts(sequence, text[rows], parts, None if before is None else before[rows])
            for matrix, source in _INPUTS.items():
                self.moments[matrix] += seen[source].T @ seen[source]
            after.append(seen["x"])
        return np.concatenate(after)


@contextmanager
def observing(checkpoint: Checkpoint, folder: Path, text: str | None) -> Iterator[Observer]:
    """An observer of a checkpoint's float32 model, which reads a text, or one that it writes itself if there is none.

    A float32 copy of the model lies in folder meanwhile. Raises ValueError for a text of less than two tokens.
    """
    with scratch_folder(folder, "calibration") as scratch:
        path = scratch / "float32.safetensors"
        convert(replace(checkpoint, notes=()), "float32", path)
        weights = load(path)
        engine, tokenizer = Engine(weights), tokenizer_of(weights)
        if text is None and tokenizer.bos_id is None:
            raise ValueError("no token begins this model's texts, so it writes none to calibrate with: give one")
        if text is None:
            n_texts = -(-N_TOKENS // engine.config.n_ctx)
            with progress_bar("writing a text", "tok", n_texts * (engine.config.n_ctx - 1), unit_scale=True) as bar:
                texts = write_text(engine, tokenizer.encode_prompt("")[0], N_TOKENS, bar.update)
        else:
            texts = cut(tokenizer.encode(text), engine.config.n_ctx)
            if sum(map(len, texts)) < 2:
                raise ValueError("the text to calibrate with has less than two tokens: give a longer one")
        n_read = sum(map(len, texts)) * engine.config.n_layer
        with progress_bar("reading it, and rounding", "tok", n_read, unit_scale=True) as bar:
            yield Observer(engine, texts, bar.update)
