"""How a model's predictions of a text depend on the length of the context, and whether its probabilities are honest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..engine.engine import Engine
from ..operations import log_softmax
from .estimate import Estimate, mean_of

N_BINS = 20
"""Bins of equal width for probabilities."""
_BLOCK = 4  # rows whose probabilities are computed together, in the cache of a core


@dataclass(frozen=True)
class Curves:
    """What `plot.svg` draws."""

    n_scored: int  # tokens
    positions: (
        np.ndarray
    )  # int64 [k + 1]: bin i has the tokens that positions[i] to positions[i + 1] - 1 others precede
    nll: list[Estimate]  # k of them: mean negative log-likelihood of the tokens of a bin, in nats
    stated: np.ndarray  # float64 [N_BINS]: mean of the probabilities in a bin; nan if there are none
    happened: np.ndarray  # float64 [N_BINS]: share of them whose token came
    counts: np.ndarray  # int64 [N_BINS]: how many probabilities, of all ids at all positions
    confidence: Estimate  # mean probability of the likeliest id
    accuracy: Estimate  # how often it came


def curves(
    engine: Engine,
    ids: list[int],
    window: int | None = None,
    bos_id: int | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Curves:
    """Loss by position, and calibration of the probabilities of all ids, over windows that do not overlap.

    Args:
        engine: runs the model.
        ids: token ids of the text, at least two.
        window: tokens that are read from an empty context; None: the model's context. All but the first are scored.
        bos_id: replaces the first token of each window, as in `perplexity`.
        progress: called with the number of windows done and the number of windows.

    Returns:
        The curves.

    Raises:
        ValueError: the text has fewer than two tokens, or the window does not fit the context.
    """
    window = engine.config.n_ctx if window is None else window
    if not 2 <= window <= engine.config.n_ctx:
        raise ValueError(f"window is {window}; it must be from 2 to {engine.config.n_ctx}, the context of this model")
    if len(ids) < 2:
        raise ValueError(f"the text has {len(ids)} tokens; this needs at least 2: choose a longer one")
    parts = [part for start in range(0, len(ids), window) if len(part := ids[start : start + window]) > 1]
    tally = _Tally()
    for number, part in enumerate(parts, start=1):
        start, targets = 0, np.array(part[1:])
        for logits in engine.logits([part[0] if bos_id is None else bos_id, *part[1:-1]]):
            for row in range(0, len(logits), _BLOCK):
                rows = slice(row, row + _BLOCK)
                tally.add(logits[rows], targets[start:][rows], start + row + 1)
            start += len(logits)
        progress(number, len(parts))
    return tally.curves()


class _Tally:
    """Sums over the rows of logits so far."""

    def __init__(self) -> None:
        self._nll: list[np.ndarray] = []
        self._positions: list[np.ndarray] = []
        self._tops: list[np.ndarray] = []  # [2, n]: probability of the likeliest id, and 1 if it came
        self._counts = np.zeros(N_BINS, np.int64)
        self._stated = np.zeros(N_BINS)
        self._happened = np.zeros(N_BINS)

    def add(self, logits: np.ndarray, targets: np.ndarray, position: int) -> None:
        """Add logits [n, n_vocab] before targets [n], the first of which `position` tokens precede."""
        n = len(targets)
        logs = log_softmax(logits)
        probabilities = np.exp(logs)
        self._nll.append(-logs[np.arange(n), targets])
        self._positions.append(np.arange(position, position + n))
        likeliest = logits.argmax(axis=1)
        self._tops.append(np.array([probabilities[np.arange(n), likeliest], likeliest == targets]))
        bins = np.minimum((probabilities * N_BINS).astype(np.int64), N_BINS - 1)
        self._counts += np.bincount(bins.ravel(), minlength=N_BINS)
        self._stated += np.bincount(bins.ravel(), probabilities.ravel(), minlength=N_BINS)
        self._happened += np.bincount(bins[np.arange(n), targets], minlength=N_BINS)

    def curves(self) -> Curves:
        nll, positions = np.concatenate(self._nll), np.concatenate(self._positions)
        edges = _edges(int(positions.max()))
        confidence, accuracy = np.concatenate(self._tops, axis=1)
        with np.errstate(invalid="ignore"):
            stated, happened = self._stated / self._counts, self._happened / self._counts
        return Curves(
            len(nll),
            edges,
            [mean_of(nll[(low <= positions) & (positions < high)]) for low, high in pairwise(edges)],
            stated,
            happened,
            self._counts,
            mean_of(confidence),
            mean_of(accuracy),
        )


def _edges(most: int) -> np.ndarray:
    """Bins of positions 1 to most, two for each doubling: int64 [k + 1]."""
    edges = np.unique(np.floor(2 ** (np.arange(2 * most.bit_length() + 1) / 2)).astype(np.int64))
    return np.append(edges[edges <= most], most + 1)
