"""Matrices of a native file as float32, for analyses in NumPy: with the rounding of the dtype, without padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..abi.layout import HEAD_DTYPE, LANES
from .native_file import NUMPY, Weights
from .packing import decode

_PANELS_AT_A_TIME = 64


def block_matrix(weights: Weights, layer: int, name: str) -> np.ndarray:
    """A matrix of a layer, for example "attn.c_proj": float32 [n_in, n_out], so that outputs are rows @ matrix."""
    n_in, n_out = weights.config.matrices[f"{name}.weight"]
    parts = _parts(weights, f"h.{layer}.{name}.weight")
    matrix: np.ndarray = decode(parts, weights.dtype, n_out, n_in).T
    return matrix


def head_rows(weights: Weights, ids: np.ndarray) -> np.ndarray:
    """Rows of the LM head, float32 [len(ids), n_embd]: the directions in the stream that make these ids' logits."""
    panels, at = np.unique(ids // LANES, return_inverse=True)
    rows: np.ndarray = _rows_of(weights, panels)[LANES * at.reshape(-1) + ids % LANES]
    return rows


def mean_head_row(weights: Weights) -> np.ndarray:
    """The mean row of the LM head, float64 [n_embd]: its dot product with a state is the mean of all logits."""
    total = np.zeros(weights.config.n_embd)
    for rows in _all_rows(weights):
        total += rows.sum(axis=0, dtype=np.float64)
    mean: np.ndarray = total / weights.config.n_vocab
    return mean


def _all_rows(weights: Weights) -> Iterator[np.ndarray]:
    """The LM head in pieces; padding of the vocabulary is left out."""
    n_vocab = weights.config.n_vocab
    n_panels = -(-n_vocab // LANES)
    for first in range(0, n_panels, _PANELS_AT_A_TIME):
        rows = _rows_of(weights, np.arange(first, min(n_panels, first + _PANELS_AT_A_TIME)))
        yield rows[: n_vocab - first * LANES]


def _rows_of(weights: Weights, panels: np.ndarray) -> np.ndarray:
    """The rows of some panels of the LM head: float32 [16 len(panels), n_embd]."""
    name = "wte.weight" if weights.config.tied_embeddings else "lm_head.weight"
    parts = tuple(part[panels] for part in _parts(weights, name))
    return decode(parts, HEAD_DTYPE[weights.dtype], LANES * len(panels), weights.config.n_embd)


def _parts(weights: Weights, name: str) -> tuple[np.ndarray, ...]:
    """The tensors that hold a matrix: values, and scales and offsets where there are some."""
    names = (name, f"{name}.scale", f"{name}.offset")
    return tuple(
        weights.bytes_of(one).view(NUMPY[weights.entries[one].dtype]).reshape(weights.entries[one].shape)
        for one in names
        if one in weights.entries
    )
