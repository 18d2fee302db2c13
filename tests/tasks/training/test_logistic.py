"""Fits, beside scikit-learn run by hand on the same features."""

import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nbgpt.tasks.classification import probabilities
from nbgpt.tasks.training import logistic
from nbgpt.tasks.training.logistic import FEATURE_CS, fit_features, fit_words


def data(n_labels=3, n=150, width=20):
    random = np.random.default_rng(n_labels)
    targets = np.arange(n) % n_labels
    centres = random.standard_normal((n_labels, width))
    features = (random.standard_normal((n, width)) + 0.7 * centres[targets]) * random.uniform(0.1, 50, width) + 100
    return features.astype(np.float32).astype(np.float64), targets


def by_hand(features, targets, c):
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(features, targets)


@pytest.mark.parametrize("n_labels", [2, 3])
def test_regularization_is_chosen_by_cross_validation(n_labels):
    features, targets = data(n_labels)
    fit = fit_features(features, targets, seed=4)
    folds = StratifiedKFold(5, shuffle=True, random_state=4)
    losses = {
        c: -cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)),
            features,
            targets,
            cv=folds,
            scoring="neg_log_loss",
        ).mean()
        for c in FEATURE_CS
    }
    assert fit.c == min(losses, key=losses.get)
    assert fit.loss == pytest.approx(losses[fit.c], rel=1e-6)
    assert (fit.n_folds, fit.converged) == (5, True)
    expected = by_hand(features, targets, fit.c).predict_proba(features)
    np.testing.assert_allclose(fit.probabilities(features), expected, atol=1e-9)


@pytest.mark.parametrize("n_labels", [2, 3, 5])
def test_the_head_has_the_same_probabilities(n_labels):
    features, targets = data(n_labels)
    fit = fit_features(features, targets, 0, (0.1,))
    head = fit.head([f"label {n}" for n in range(n_labels)], 2, "mean")
    logits = head.logits(features)
    np.testing.assert_allclose(
        probabilities(logits, False), by_hand(features, targets, 0.1).predict_proba(features), atol=1e-9
    )
    np.testing.assert_allclose(logits.sum(axis=1), 0, atol=1e-9)
    assert (head.layer, head.pooling, head.multi_label) == (2, "mean", False)


def test_independent_labels():
    features, targets = data(4)
    sets = np.stack([targets == 0, targets <= 1, targets == 3], axis=1)
    fit = fit_features(features, sets, 0)
    head = fit.head(["a", "b", "c"], 0, "last")
    odds = probabilities(head.logits(features), True)
    for number in range(3):
        alone = by_hand(features, sets[:, number], fit.c).predict_proba(features)[:, 1]
        np.testing.assert_allclose(odds[:, number], alone, atol=1e-9)
    np.testing.assert_allclose(odds, fit.probabilities(features), atol=1e-12)


@pytest.mark.parametrize(("n_rare", "n_folds"), [(1, 0), (2, 2), (4, 4), (9, 5)])
def test_a_small_label_limits_the_folds(n_rare, n_folds):
    features, targets = data(2)
    rows = np.concatenate((np.flatnonzero(targets == 0), np.flatnonzero(targets == 1)[:n_rare]))
    fit = fit_features(features[rows], targets[rows], 0)
    assert fit.n_folds == n_folds
    assert np.isnan(fit.loss) == (n_folds == 0)


def test_words():
    texts = ["a stormy night", "a stormy sea", "the merry dance", "a merry song"] * 5
    fit = fit_words(texts, np.array([0, 0, 1, 1] * 5), 0)
    assert (fit.probabilities(["stormy", "merry"]).argmax(axis=1) == [0, 1]).all()
    with pytest.raises(ValueError, match="empty vocabulary"):
        fit_words(["! ?"] * 20, np.array([0, 1] * 10), 0)


def test_a_fit_that_ends_early_says_so(monkeypatch):
    monkeypatch.setattr(logistic, "_MAX_ITERATIONS", 2)
    assert not fit_features(*data(), 0, (10.0,)).converged


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'training needs the package scikit-learn: pip install "nbgpt\[train\]"'):
        logistic.require_scikit_learn()
