"""How far the predictions of one model are from those of another, as a quantized model's from the original's.

Source: llama.cpp, tools/perplexity/perplexity.cpp, `kl_divergence`: the same windows, statistics and errors; all in
float64, while llama.cpp stores the first model's log-probabilities in 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..engine.engine import Engine
from ..operations import log_softmax
from .estimate import Estimate, exp_of, mean_of
from .perplexity import windows

PERCENTILES = (100, 99.9, 99, 95, 90, 75, 50, 25, 10, 5, 1, 0.1, 0)
_BLOCK = 4  # rows whose probabilities are computed together, in the cache of a core
_FIELDS = ("nll_a", "nll_b", "divergence", "change", "same_top")


@dataclass(frozen=True)
class Comparison:
    """Statistics of model B beside model A over the scored tokens of a text."""

    window: int  # tokens that are read from an empty context
    n_scored: int
    perplexity_a: Estimate
    perplexity_b: Estimate
    log_ratio: Estimate  # ln(perplexity of B / perplexity of A); the error knows that both read the same tokens
    correlation: float  # of the NLLs of A and B, token by token; nan if one of them is constant
    divergence: Estimate  # mean of KL(A || B) over the tokens, in nats
    divergence_percentiles: dict[float, float]  # by PERCENTILES
    change: Estimate  # mean of p_B(token) - p_A(token)
    change_percentiles: dict[float, float]
    change_rms: Estimate
    same_top: Estimate  # share of tokens before which both find the same id likeliest

    @property
    def ratio(self) -> Estimate:
        """Perplexity of B divided by that of A."""
        return exp_of(self.log_ratio)


def compare(
    engine_a: Engine,
    engine_b: Engine,
    ids: list[int],
    window: int | None = None,
    bos_id: int | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Comparison:
    """Compare two models of one vocabulary on a text; the second half of each window is scored, as in `perplexity`.

    Args:
        engine_a: runs the model that is the measure, as the float32 one.
        engine_b: runs the other one.
        ids: token ids of the text.
        window: tokens of a window; None: the context of the model that has the smaller one.
        bos_id: replaces the first token of each window, as llama.cpp does for models that begin texts with BOS.
        progress: called with the number of windows done and the number of windows.

    Returns:
        The comparison.

    Raises:
        ValueError: the text is shorter than a window, the window does not fit the contexts, or the models have
            another number of ids.
    """
    if engine_a.config.n_vocab != engine_b.config.n_vocab:
        sizes = f"{engine_a.config.n_vocab} and {engine_b.config.n_vocab}"
        raise ValueError(f"the models have {sizes} ids; only models of one vocabulary can be compared")
    n_ctx = min(engine_a.config.n_ctx, engine_b.config.n_ctx)
    window = n_ctx if window is None else window
    if not 4 <= window <= n_ctx:
        raise ValueError(f"window is {window}; it must be from 4 to {n_ctx}, the context of these models")
    if len(ids) < window:
        raise ValueError(f"the text has {len(ids)} tokens; this needs at least {window}: choose a longer one")
    parts: list[np.ndarray] = []
    spans = list(windows(len(ids), "llama.cpp", window, window))
    for number, (start, stop, first) in enumerate(spans, start=1):
        part = ids[start:stop]
        read = part if bos_id is None else [bos_id, *part[1:]]
        parts += _window(engine_a, engine_b, read[:-1], np.array(part[1:]), first - start - 1)
        progress(number, len(spans))
    return _statistics(window, dict(zip(_FIELDS, np.concatenate(parts, axis=1), strict=True)))


def _window(
    engine_a: Engine, engine_b: Engine, read: list[int], targets: np.ndarray, first: int
) -> Iterator[np.ndarray]:
    """_FIELDS of the tokens from `first` on, float64 [5, n], part by part; targets [len(read)] follow the ids read."""
    start = 0
    for a, b in zip(engine_a.logits(read), engine_b.logits(read), strict=True):
        for row in range(max(0, first - start), len(a), _BLOCK):
            rows = slice(row, row + _BLOCK)
            yield _rows(a[rows], b[rows], targets[start:][rows])
        start += len(a)


def _rows(a: np.ndarray, b: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """_FIELDS of rows of logits [n, n_vocab] before targets [n]: float64 [5, n]."""
    log_a, log_b = log_softmax(a), log_softmax(b)
    divergence = (np.exp(log_a) * (log_a - log_b)).sum(axis=1)
    at = np.arange(len(targets)), targets
    change = np.exp(log_b[at]) - np.exp(log_a[at])
    return np.array([-log_a[at], -log_b[at], divergence, change, a.argmax(axis=1) == b.argmax(axis=1)])


def _statistics(window: int, of: dict[str, np.ndarray]) -> Comparison:
    """The comparison, from _FIELDS by name, float64 [n_scored] each."""
    nll_a, nll_b = of["nll_a"], of["nll_b"]
    squares = mean_of(of["change"] ** 2)
    rms = float(np.sqrt(squares.value))
    return Comparison(
        window,
        len(nll_a),
        exp_of(mean_of(nll_a)),
        exp_of(mean_of(nll_b)),
        mean_of(nll_b - nll_a),
        _correlation(nll_a, nll_b),
        mean_of(of["divergence"]),
        _percentiles(of["divergence"]),
        mean_of(of["change"]),
        _percentiles(of["change"]),
        Estimate(rms, squares.standard_error / (2 * rms) if rms else 0.0),
        mean_of(of["same_top"]),
    )


def _percentiles(values: np.ndarray) -> dict[float, float]:
    """Values at PERCENTILES, interpolated between neighbours."""
    return dict(zip(PERCENTILES, np.percentile(values, PERCENTILES).tolist(), strict=True))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, of two arrays [n]; nan if one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / size if size else float("nan")
