"""Train a classifier: frozen hidden states of a model, and logistic regression on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Protocol

import numpy as np

from ...engine.engine import Engine
from ...progress import progress_bar
from ...tokenizer import Tokenizer
from ...validation import check
from ...weights import Pooling
from ..classification import probabilities
from ..features import checked_layer, checked_pooling, encode_truncated, pooled
from . import curves
from .classifier import Classifier
from .data import DataSet, Say, divide
from .evaluation import evaluate
from .feature_cache import cached
from .logistic import N_FOLDS, Fit, fit_features, fit_words, require_scikit_learn
from .results import Evaluation

MAX_LAYERS = 7
"""Layers that are tried, evenly spaced from the embedding to the last."""


class Loaded(Protocol):
    """A model with its tokenizer, as `nbgpt.Model`."""

    engine: Engine
    tokenizer: Tokenizer


def train_classifier(
    model: Loaded,
    texts: Iterable[str],
    labels: Iterable[Any],
    *,
    validation: float | tuple[Iterable[str], Iterable[Any]] = 0.2,
    pooling: Pooling = "both",
    layer: int | Literal["auto"] = "auto",
    bos: bool | None = None,
    seed: int = 0,
) -> Classifier:
    """Train a classifier on a model's hidden states, which stay as they are, and measure it on other texts.

    The head is logistic regression on standardized features. Its regularization, and the layer if that is "auto", are
    those with the least log loss in cross-validation on the training texts. Features are kept in the user's folder, so
    that a second call with the same texts does not compute them. What was done to the data is in `evaluation.notes`.

    Args:
        model: as `nbgpt.load` returns.
        texts: to train on.
        labels: a text or a whole number for each text; or a list of these, and a text may have any number of labels.
        validation: the share of the texts to measure with, which keeps each label's share; or other texts and labels.
        pooling: "last" token's hidden state, "mean" of all tokens', or "both", one after the other.
        layer: as in `Model.hidden_states`: from 0, the embedding, to n_layer; or "auto".
        bos: begin texts with <|endoftext|>; None: as the model's file says.
        seed: of the division, the folds and the resamples.

    Returns:
        The classifier, with its evaluation.

    Raises:
        ValueError: an argument is out of range, or the data cannot be trained on.
        ImportError: scikit-learn is not installed.
    """
    return train(model, (texts, labels), validation=validation, pooling=pooling, layer=layer, bos=bos, seed=seed)


def train(
    model: Loaded,
    examples: tuple[Iterable[Any], Iterable[Any]],
    *,
    validation: float | tuple[Iterable[Any], Iterable[Any]],
    pooling: Pooling,
    layer: int | Literal["auto"],
    bos: bool | None,
    seed: int,
    say: Say = lambda note: None,
) -> Classifier:
    """`train_classifier` that says what it does to the data while it does it."""
    require_scikit_learn()
    engine, tokenizer, notes = model.engine, model.tokenizer, list[str]()
    if engine.weights.head is not None:
        raise ValueError(f"{engine.weights.name} is a classifier already: train on its base model")
    checked_pooling(pooling)
    check("seed", seed, int, lambda seed: 0 <= seed < 1 << 32, "a whole number from 0 to 4294967295")
    chosen = None if layer == "auto" else checked_layer(engine.config, layer)

    def note(sentence: str) -> None:
        notes.append(sentence)
        say(sentence)

    data = divide(*examples, validation, seed, note)
    layers = _layers(engine.config.n_layer, chosen)
    features = _features(model, data, layers, pooling, bos, note)
    training, held_out = np.split(features, [len(data.training)], axis=1)
    with progress_bar("fitting", "fit", len(layers) + len(curves.SHARES) + 2) as bar:
        by_layer = curves.over_layers(data, layers, training, held_out, seed, bar.update)
        best = _best(by_layer) if chosen is None else layers.index(chosen)
        fit = fit_features(training[best], data.training.targets, seed)
        bar.update()
        words = _word_baseline(data, seed, note)
        bar.update()
        by_examples = curves.over_sizes(data, training[best], held_out[best], fit, words, seed, bar.update)
    _note_fit(fit, note)
    head = fit.head(data.labels, layers[best], pooling)
    odds = probabilities(head.logits(held_out[best]), data.multi_label)
    everything = {"this classifier": odds, **_baselines(data, words)}
    scores = {name: evaluate(one, data.validation.targets, seed) for name, one in everything.items()}
    weights, n_layer = engine.weights, engine.config.n_layer
    evaluation = Evaluation(
        data, head, f"{weights.name} {weights.dtype}", n_layer, tuple(notes), fit, scores, odds, by_layer, by_examples
    )
    return Classifier(engine, tokenizer, tokenizer.adds_bos if bos is None else bos, evaluation)


def _layers(n_layer: int, chosen: int | None) -> list[int]:
    """The layers to try, and the chosen one."""
    spaced = np.linspace(0, n_layer, min(MAX_LAYERS, n_layer + 1)).round().astype(int).tolist()
    return sorted({*spaced, *([] if chosen is None else [chosen])})


def _features(
    model: Loaded, data: DataSet, layers: list[int], pooling: Pooling, bos: bool | None, note: Say
) -> np.ndarray:
    """Features of the training texts, then of the others: float32 [n_layers, n_texts, n_features]."""
    engine, tokenizer = model.engine, model.tokenizer
    batch, n_truncated = encode_truncated(engine, tokenizer, [*data.training.texts, *data.validation.texts], bos)
    if n_truncated:
        note(f"{n_truncated} of {len(batch)} texts are longer than {engine.config.n_ctx} tokens: their end was read")

    distinct = sorted({tuple(ids) for ids in batch}, key=lambda ids: (len(ids), ids))  # whatever the division
    row_of = {ids: row for row, ids in enumerate(distinct)}

    def compute() -> np.ndarray:
        with progress_bar("reading texts", "text", len(distinct)) as bar:
            return pooled(engine, distinct, layers, pooling, tokenizer.bos_id, bar.update)

    features = cached(engine, distinct, layers, pooling, compute)[:, [row_of[tuple(ids)] for ids in batch]]
    if not np.isfinite(features).all():
        raise ValueError("the model's hidden states overflow on these texts; take another --dtype or another layer")
    return features


def _best(by_layer: list[curves.AtLayer]) -> int:
    """Place of the layer with the least loss; of the last one if there was no cross-validation."""
    losses = np.array([one.loss for one in by_layer])
    return len(losses) - 1 if np.isnan(losses).any() else int(losses.argmin())


def _word_baseline(data: DataSet, seed: int, note: Say) -> Fit | None:
    try:
        return fit_words(data.training.texts, data.training.targets, seed)
    except ValueError:
        note("no baseline of words: the texts have none that scikit-learn's TF-IDF counts")
        return None


def _baselines(data: DataSet, words: Fit | None) -> dict[str, np.ndarray]:
    """Probabilities of the validation texts by what everybody should beat."""
    shares = data.counts(data.training) / len(data.training)
    found = {} if words is None else {"TF-IDF": words.probabilities(data.validation.texts)}
    return {**found, "largest class": np.tile(shares, (len(data.validation), 1))}


def _note_fit(fit: Fit, note: Say) -> None:
    if not fit.n_folds:
        note(f"a label has too few texts for cross-validation: C is {fit.c:g}, and the layer the given or last one")
    elif fit.n_folds < N_FOLDS:
        note(f"cross-validation in {fit.n_folds} folds, as many as the smallest label has texts")
    if not fit.converged:
        note("logistic regression did not converge; its figures are those of its last step")
