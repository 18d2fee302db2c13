"""Logistic regression by scikit-learn, its regularization chosen by cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...weights import ClassifierHead, Pooling
from .evaluation import mean_log_loss

N_FOLDS = 5
FEATURE_CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse regularization strengths to choose from, for standardized hidden states."""
WORD_CS = (1e-1, 1.0, 10.0, 100.0, 1000.0)
"""The same for TF-IDF, whose numbers are small."""
_UNCHECKED_C = 1e-2
_MAX_ITERATIONS = 2000


def require_scikit_learn() -> None:
    """Raise ImportError that says how to get it."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise ImportError('training needs the package scikit-learn: pip install "nbgpt[train]"') from None


@dataclass(frozen=True)
class Fit:
    """A fitted pipeline of scikit-learn, and how it was chosen."""

    pipeline: Any
    c: float
    loss: float  # mean log loss over the folds, of the best C; nan without cross-validation
    n_folds: int  # 0: the smallest label has too few texts for cross-validation
    converged: bool

    def probabilities(self, inputs: Any) -> np.ndarray:
        """Float64 [n, n_labels] for features float32 [n, n_features], or for texts."""
        inputs = inputs.astype(np.float64) if isinstance(inputs, np.ndarray) else inputs
        found: np.ndarray = self.pipeline.predict_proba(inputs)
        return found

    def head(self, labels: Sequence[str], layer: int, pooling: Pooling) -> ClassifierHead:
        """The fit as a classifier's head.

        The logits of a text sum to 0 unless labels are independent, which leaves the probabilities as they are; of two
        labels scikit-learn has one logit only, which is the difference of the two.
        """
        scaler, model = (step for _, step in self.pipeline.steps)
        multi_label = hasattr(model, "estimators_")
        parts = model.estimators_ if multi_label else [model]
        coefficients = np.concatenate([part.coef_ for part in parts])
        intercept = np.concatenate([part.intercept_ for part in parts])
        if not multi_label:
            if len(labels) == 2:
                coefficients, intercept = np.vstack((0 * coefficients, coefficients)), np.append(0.0, intercept)
            coefficients, intercept = coefficients - coefficients.mean(axis=0), intercept - intercept.mean()
        coefficients = np.ascontiguousarray(coefficients)  # as in a file, so that sums have one order
        return ClassifierHead(
            tuple(labels), multi_label, layer, pooling, scaler.mean_, scaler.scale_, coefficients, intercept
        )


def fit_features(features: np.ndarray, targets: np.ndarray, seed: int, cs: Sequence[float] = FEATURE_CS) -> Fit:
    """A classifier of hidden states [n, n_features], which are standardized first; all of it in float64."""
    from sklearn.preprocessing import StandardScaler

    return _fit(StandardScaler(), features.astype(np.float64), targets, seed, cs)


def fit_words(texts: Sequence[str], targets: np.ndarray, seed: int, cs: Sequence[float] = WORD_CS) -> Fit:
    """A classifier of words and pairs of words, weighted by TF-IDF. Raises ValueError if the texts have no words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return _fit(words, np.array(texts, object), targets, seed, cs)


def _fit(transformer: Any, inputs: Any, targets: np.ndarray, seed: int, cs: Sequence[float]) -> Fit:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import Pipeline
    from threadpoolctl import threadpool_limits

    multi_label = targets.ndim == 2
    logistic = LogisticRegression(C=_UNCHECKED_C, max_iter=_MAX_ITERATIONS)
    model = OneVsRestClassifier(logistic) if multi_label else logistic
    pipeline = Pipeline([("inputs", transformer), ("logistic", model)])
    n_folds = min(N_FOLDS, len(targets) // 2 if multi_label else int(np.bincount(targets).min()))
    targets = targets.astype(np.int64)
    # One thread of BLAS: several of them wait for each other longer than so small products take.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fold in which a label is always or never there; the last fit is checked
        if len(cs) == 1 or n_folds < 2:
            pipeline.set_params(
                logistic=model.set_params(**{_parameter(model): cs[0] if len(cs) == 1 else _UNCHECKED_C})
            )
            pipeline.fit(inputs, targets)
            return Fit(
                pipeline, pipeline.get_params()[f"logistic__{_parameter(model)}"], np.nan, 0, _converged(pipeline)
            )
        folds = (KFold if multi_label else StratifiedKFold)(n_folds, shuffle=True, random_state=seed)
        search = GridSearchCV(pipeline, {f"logistic__{_parameter(model)}": list(cs)}, scoring=_score, cv=folds)
        search.fit(inputs, targets)
    [c] = search.best_params_.values()
    return Fit(search.best_estimator_, c, -float(search.best_score_), n_folds, _converged(search.best_estimator_))


def _parameter(model: Any) -> str:
    return "estimator__C" if hasattr(model, "estimator") else "C"


def _score(pipeline: Any, inputs: Any, targets: np.ndarray) -> float:
    return -mean_log_loss(pipeline.predict_proba(inputs), targets)


def _converged(pipeline: Any) -> bool:
    model = pipeline.steps[-1][1]
    parts = getattr(model, "estimators_", [model])
    return all(int(np.max(part.n_iter_)) < _MAX_ITERATIONS for part in parts)
