"""Train a classifier: frozen hidden states of a model, and logistic regression on them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from ...engine.engine import Engine
from ...text.prompts import Text
from ...tokenizer import Tokenizer
from ...validation import check
from ...weights import BaseReference, ClassifierHead, Pooling, fingerprint, save_head
from ..classification import head_logits, probabilities
from ..features import checked_layer, encode_truncated, pooled
from . import curves
from .data import DataSet, Say, divide
from .evaluation import Scores, evaluate, predicted
from .feature_cache import cached
from .logistic import N_FOLDS, Fit, fit_features, fit_words, require_scikit_learn

MAX_LAYERS = 7
"""Layers that are tried, evenly spaced from the embedding to the last."""


class Loaded(Protocol):
    """A model with its tokenizer, as `nbgpt.Model`."""

    engine: Engine
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Evaluation:
    """What was measured in training, all of it on the validation texts unless said."""

    data: DataSet
    notes: tuple[str, ...]  # what was done to the data, a sentence each
    fit: Fit
    scores: dict[str, Scores]  # by the name of what was measured; this classifier first
    probabilities: np.ndarray  # of the validation texts, float64 [n, n_labels]
    by_layer: list[curves.AtLayer]
    by_examples: list[curves.AtSize]


@dataclass(frozen=True)
class Classifier:
    """A trained head with the model whose hidden states it reads."""

    engine: Engine
    tokenizer: Tokenizer
    head: ClassifierHead
    bos: bool
    evaluation: Evaluation

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, sorted."""
        return self.head.labels

    def predict_proba(self, texts: Sequence[Text]) -> np.ndarray:
        """Probabilities of the labels for each text, float64 [n_texts, n_labels]."""
        return probabilities(
            head_logits(self.engine, self.tokenizer, self.head, texts, self.bos), self.head.multi_label
        )

    def predict(self, texts: Sequence[Text]) -> list[str] | list[list[str]]:
        """The likeliest label of each text; of independent labels, a list of those with more than 1/2."""
        chosen = predicted(self.predict_proba(texts), self.head.multi_label)
        names = [[self.labels[number] for number in np.flatnonzero(row)] for row in chosen]
        return names if self.head.multi_label else [one for [one] in names]

    def save(self, path: str | Path, name: str | None = None) -> Path:
        """Write a file that `nbgpt.load` reads. It names the base model, which has to stay where it is or beside it.

        Args:
            path: of the file; it must end in .safetensors.
            name: of the classifier; None: that of the file.

        Raises:
            ValueError: the path has another ending, or is the base model's.
            OSError: the file cannot be written.
        """
        path, weights = Path(path), self.engine.weights
        if path.suffix != ".safetensors":
            raise ValueError(f"{path} is the name of the file; it must end in .safetensors")
        if path.exists() and weights.path.exists() and path.samefile(weights.path):
            raise ValueError(f"{path} is the base model: choose another name for the classifier")
        place = relpath(weights.path.absolute(), path.absolute().parent)
        about = f"classifier of {len(self.labels)} labels, trained on {len(self.evaluation.data.training)} texts"
        base = BaseReference(weights.name, weights.dtype, place, fingerprint(weights), self.bos, about)
        save_head(path, self.head, base, name or path.stem)
        return path

    def report(self, path: str | Path) -> None:
        """Write the evaluation as a page: HTML, or Markdown if the path ends in .md. Raises OSError."""
        from .report import write_report

        write_report(self, Path(path))

    def export(self, folder: str | Path) -> None:
        """Write a folder for transformers' GPT2ForSequenceClassification: see `export.export`."""
        from .export import export

        export(self.engine.weights, self.tokenizer, self.head, self.bos, Path(folder))


def train_classifier(
    model: Loaded,
    texts: Iterable[str],
    labels: Iterable[Any],
    *,
    validation: float | tuple[Iterable[str], Iterable[Any]] = 0.2,
    pooling: Pooling = "mean",
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
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling is {pooling!r}; choose 'last', 'mean' or 'both'")
    check("seed", seed, int, lambda seed: 0 <= seed < 1 << 32, "a whole number from 0 to 4294967295")
    chosen = None if layer == "auto" else checked_layer(engine.config, layer)

    def note(sentence: str) -> None:
        notes.append(sentence)
        say(sentence)

    data = divide(*examples, validation, seed, note)
    layers = _layers(engine.config.n_layer, chosen)
    features = _features(model, data, layers, pooling, bos, note)
    training, held_out = np.split(features, [len(data.training)], axis=1)
    with _bar("fitting", len(layers) + len(curves.SHARES) + 2, "fit") as done:
        by_layer = curves.over_layers(data, layers, training, held_out, seed, done)
        best = _best(by_layer) if chosen is None else layers.index(chosen)
        fit = fit_features(training[best], data.training.targets, seed)
        done(1)
        words = _word_baseline(data, seed, note)
        done(1)
        by_examples = curves.over_sizes(data, training[best], held_out[best], fit, words, seed, done)
    _note_fit(fit, note)
    head = fit.head(data.labels, layers[best], pooling)
    odds = probabilities(head.logits(held_out[best]), data.multi_label)
    scores = {"this classifier": odds, **_baselines(data, words)}
    evaluation = Evaluation(
        data,
        tuple(notes),
        fit,
        {name: evaluate(one, data.validation.targets, seed) for name, one in scores.items()},
        odds,
        by_layer,
        by_examples,
    )
    return Classifier(engine, tokenizer, head, tokenizer.adds_bos if bos is None else bos, evaluation)


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

    def compute() -> np.ndarray:
        with _bar("reading texts", len(batch), "text") as done:
            return pooled(engine, batch, layers, pooling, tokenizer.bos_id, done)

    features = cached(engine, batch, layers, pooling, compute)
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


@contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit=unit, file=sys.stderr, delay=0.5, disable=None) as bar:
        yield bar.update
