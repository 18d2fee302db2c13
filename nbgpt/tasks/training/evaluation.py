"""How good a classifier is: accuracy, macro F1 and log loss with bootstrap intervals; calibration; the ROC curve.

`probabilities` are float64 [n, n_labels]; `targets` are int64 [n], or for multi-label data bool [n, n_labels].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_RESAMPLES = 1000
LEVEL = 0.95
_LEAST = np.finfo(np.float64).eps
"""Probabilities are at least this in log loss, as in scikit-learn."""
_CHUNK = 1 << 22  # counts of resampled texts that are drawn at a time


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Scores:
    """The measures of a classifier on texts that it has not seen."""

    accuracy: Interval  # share of the texts whose label is right; of multi-label texts, all labels
    macro_f1: Interval  # mean over labels of the harmonic mean of precision and recall
    log_loss: Interval  # mean of -log p(label) in nats; of multi-label texts, mean over labels too


def predicted(probabilities: np.ndarray, multi_label: bool) -> np.ndarray:
    """Bool [n, n_labels]: the likeliest label of each text; of independent labels those with more than 1/2."""
    if multi_label:
        return probabilities > 0.5
    return one_hot(probabilities.argmax(axis=1), probabilities.shape[1])


def one_hot(targets: np.ndarray, n_labels: int) -> np.ndarray:
    """Targets as bool [n, n_labels]."""
    return targets.astype(bool) if targets.ndim == 2 else targets[:, None] == np.arange(n_labels)


def log_losses(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log p of each text's label, float64 [n]; of independent labels the mean over them of -log p of yes or no."""
    probabilities = np.clip(probabilities.astype(np.float64), _LEAST, 1 - _LEAST if targets.ndim == 2 else 1)
    if targets.ndim == 2:
        found: np.ndarray = -np.log(np.where(targets, probabilities, 1 - probabilities)).mean(axis=1)
        return found
    losses: np.ndarray = -np.log(probabilities[np.arange(len(targets)), targets])
    return losses


def mean_log_loss(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(probabilities, targets).mean())


def accuracy(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Share of the texts whose label is predicted; of multi-label texts, all labels."""
    true = one_hot(targets, probabilities.shape[1])
    return float((predicted(probabilities, targets.ndim == 2) == true).all(axis=1).mean())


def evaluate(probabilities: np.ndarray, targets: np.ndarray, seed: int) -> Scores:
    """The measures, with percentile intervals from resamples of the texts (Efron 1979, "Bootstrap Methods")."""
    n = len(targets)
    guess, true = predicted(probabilities, targets.ndim == 2), one_hot(targets, probabilities.shape[1])
    correct = (guess == true).all(axis=1)
    columns = np.column_stack((correct, log_losses(probabilities, targets), guess & true, guess, true))
    columns = columns.astype(np.float64)
    random = np.random.default_rng(seed)
    rows, found = max(1, _CHUNK // n), []
    for start in range(0, N_RESAMPLES, rows):
        counts = random.multinomial(n, np.full(n, 1 / n), size=min(rows, N_RESAMPLES - start))
        found.append(_measures(counts @ columns, n))
    [values], resampled = _measures(columns.sum(axis=0)[None], n), np.concatenate(found)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Scores(*(Interval(*map(float, figures)) for figures in zip(values, low, high, strict=True)))


def _measures(sums: np.ndarray, n: int) -> np.ndarray:
    """(accuracy, macro F1, log loss) from the sums of each resample's columns: float64 [n_resamples, 3]."""
    hits, guessed, true = np.split(sums[:, 2:], 3, axis=1)
    f1 = np.divide(2 * hits, guessed + true, out=np.zeros_like(hits), where=guessed + true > 0)
    return np.column_stack((sums[:, 0] / n, f1.mean(axis=1), sums[:, 1] / n))


def confusion(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Number of texts of each label (row) that are given each label (column): int64 [n_labels, n_labels]."""
    n_labels = probabilities.shape[1]
    pairs = targets * n_labels + probabilities.argmax(axis=1)
    counts: np.ndarray = np.bincount(pairs, minlength=n_labels**2).reshape(n_labels, n_labels)
    return counts


def by_label(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Precision, recall and F1 of each label: float64 [n_labels, 3]; 0 where there is nothing to divide by."""
    guess, true = predicted(probabilities, targets.ndim == 2), one_hot(targets, probabilities.shape[1])
    hits, guessed, present = (array.sum(axis=0).astype(np.float64) for array in (guess & true, guess, true))

    def share(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        divided: np.ndarray = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
        return divided

    return np.column_stack((share(hits, guessed), share(hits, present), share(2 * hits, guessed + present)))


def calibration(probabilities: np.ndarray, targets: np.ndarray, n_bins: int = 10) -> np.ndarray:
    """Of predictions in bins of equal size: mean probability, share that is right, number: float64 [n_bins, 3].

    Of a text that is the likeliest label; of multi-label texts each label is a prediction.
    """
    if targets.ndim == 2:
        odds, right = probabilities.ravel(), targets.ravel().astype(bool)
    else:
        odds, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    order = np.argsort(odds, kind="stable")
    bins = [part for part in np.array_split(order, n_bins) if len(part)]
    return np.array([(odds[part].mean(), right[part].mean(), len(part)) for part in bins])


def calibration_error(bins: np.ndarray) -> float:
    """Expected calibration error of what `calibration` returns: mean distance of probability and share, by number."""
    return float(np.average(np.abs(bins[:, 0] - bins[:, 1]), weights=bins[:, 2]))


def roc(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """The ROC curve of scores [n] for what is positive, bool [n]: (false, true positive rate), float64 [m, 2].

    It goes from (0, 0) to (1, 1), with a point for each threshold. nan where there is no positive or no negative.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of each run of equal scores
    hits, misses = np.cumsum(positive[order])[last], np.cumsum(~positive[order])[last]
    with np.errstate(invalid="ignore"):
        rates = np.column_stack((misses / misses[-1], hits / hits[-1]))
    return np.vstack(([0.0, 0.0], rates))


def area(curve: np.ndarray) -> float:
    """The area under a ROC curve, by trapezoids."""
    x, y = curve.T
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2)
