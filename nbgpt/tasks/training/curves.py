"""How accuracy depends on the layer that is read, and on the number of texts to train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .data import DataSet, Examples
from .evaluation import accuracy
from .logistic import Fit, fit_features, fit_words

SCAN_TEXTS = 2000
"""Training texts at most with which layers are compared."""
SCAN_CS = (1e-3, 1e-2, 1e-1)
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)

Done = Callable[[int], object]
"""Called with the number of fits that are done since the last call."""


@dataclass(frozen=True)
class AtLayer:
    """A classifier that reads this layer."""

    layer: int
    loss: float  # log loss in cross-validation on the training texts, by which a layer is chosen; may be nan
    accuracy: float  # on the validation texts


@dataclass(frozen=True)
class AtSize:
    """Classifiers trained on some of the training texts, with the regularization that was chosen for all of them."""

    n: int
    accuracy: float  # on the validation texts
    words: float | None  # that of TF-IDF


def over_layers(
    data: DataSet, layers: Sequence[int], training: np.ndarray, validation: np.ndarray, seed: int, done: Done
) -> list[AtLayer]:
    """A classifier for each layer, from features [n_layers, n_texts, n_features]."""
    rows, targets = nested(data.training, seed)[:SCAN_TEXTS], data.training.targets
    found = []
    for layer, features, others in zip(layers, training, validation, strict=True):
        fit = fit_features(features[rows], targets[rows], seed, SCAN_CS)
        found.append(AtLayer(layer, fit.loss, accuracy(fit.probabilities(others), data.validation.targets)))
        done(1)
    return found


def over_sizes(
    data: DataSet, training: np.ndarray, validation: np.ndarray, fit: Fit, words: Fit | None, seed: int, done: Done
) -> list[AtSize]:
    """Classifiers of more and more of the training texts, each of which has all labels; features [n, n_features]."""
    order, targets, held_out = nested(data.training, seed), data.training.targets, data.validation
    found = []
    for share in SHARES:
        rows = order[: round(share * len(order))]
        part = data.training[rows]
        if (data.counts(part) == 0).any() or (data.multi_label and (data.counts(part) == len(part)).any()):
            continue
        here = fit_features(training[rows], targets[rows], seed, (fit.c,))
        by_words = None
        if words is not None:
            by_words = accuracy(_word_fit(part, words, seed).probabilities(held_out.texts), held_out.targets)
        found.append(AtSize(len(rows), accuracy(here.probabilities(validation), held_out.targets), by_words))
        done(1)
    return found


def _word_fit(part: Examples, words: Fit, seed: int) -> Fit:
    return fit_words(part.texts, part.targets, seed, (words.c,))


def nested(training: Examples, seed: int) -> np.ndarray:
    """Numbers of the training texts in an order in which every beginning has the labels' shares, as near as can be."""
    shuffled = np.random.default_rng(seed).permutation(len(training))
    if training.targets.ndim == 2:
        return shuffled
    targets = training.targets[shuffled]
    place = np.empty(len(targets))
    for target in np.unique(targets):
        of_label = np.flatnonzero(targets == target)
        place[of_label] = (np.arange(len(of_label)) + 0.5) / len(of_label)
    return shuffled[np.argsort(place, kind="stable")]
