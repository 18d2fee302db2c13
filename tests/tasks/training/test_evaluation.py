"""Measures, beside scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from nbgpt.tasks.training import evaluation


def data(rng, n=400, n_labels=3):
    targets = rng.integers(0, n_labels, n)
    logits = rng.standard_normal((n, n_labels)) + 1.5 * (targets[:, None] == np.arange(n_labels))
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), targets


def multi(rng, n=300):
    targets = rng.random((n, 3)) < [0.5, 0.2, 0.05]
    return 1 / (1 + np.exp(-(rng.standard_normal((n, 3)) + 3 * targets - 1.5))), targets


def by_sklearn(odds, targets):
    """(accuracy, macro F1, log loss)."""
    if targets.ndim == 2:
        losses = [metrics.log_loss(targets[:, k], odds[:, k], labels=[0, 1]) for k in range(odds.shape[1])]
        guess, labels = odds > 0.5, None
        loss = np.mean(losses)
    else:
        guess, labels = odds.argmax(axis=1), range(odds.shape[1])
        loss = metrics.log_loss(targets, odds, labels=labels)
    f1 = metrics.f1_score(targets, guess, labels=labels, average="macro", zero_division=0)
    return metrics.accuracy_score(targets, guess), f1, loss


def figures(scores):
    return scores.accuracy, scores.macro_f1, scores.log_loss


@pytest.mark.parametrize("make", [data, multi])
def test_measures(rng, make):
    odds, targets = make(rng)
    found = evaluation.evaluate(odds, targets, seed=0)
    np.testing.assert_allclose([one.value for one in figures(found)], by_sklearn(odds, targets), rtol=1e-12)
    assert evaluation.accuracy(odds, targets) == found.accuracy.value
    assert evaluation.mean_log_loss(odds, targets) == pytest.approx(found.log_loss.value, rel=1e-12)


@pytest.mark.parametrize("make", [data, multi])
def test_intervals_are_those_of_resampled_texts(rng, make):
    """The same method with other random numbers, by scikit-learn on each resample."""
    odds, targets = make(rng)
    resampled = []
    for _ in range(400):
        rows = rng.integers(0, len(targets), len(targets))
        resampled.append(by_sklearn(odds[rows], targets[rows]))
    spread, width = np.std(resampled, axis=0), np.quantile(resampled, [0.025, 0.975], axis=0)
    for one, deviation, (low, high) in zip(
        figures(evaluation.evaluate(odds, targets, seed=1)), spread, width.T, strict=True
    ):
        assert one.low < one.value < one.high
        assert abs(one.low - low) < 0.5 * deviation
        assert abs(one.high - high) < 0.5 * deviation


def test_intervals_follow_the_seed_and_not_the_chunks(rng, monkeypatch):
    odds, targets = data(rng)
    first = evaluation.evaluate(odds, targets, seed=5)
    assert first == evaluation.evaluate(odds, targets, seed=5) != evaluation.evaluate(odds, targets, seed=6)
    monkeypatch.setattr(evaluation, "_CHUNK", 1000)
    for one, other in zip(figures(evaluation.evaluate(odds, targets, seed=5)), figures(first), strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=1e-9)


def test_a_label_that_nobody_has_or_gets(rng):
    odds, targets = data(rng)
    odds = np.column_stack((odds, np.zeros(len(odds))))
    found = evaluation.evaluate(odds, targets, seed=0)
    np.testing.assert_allclose([one.value for one in figures(found)], by_sklearn(odds, targets), rtol=1e-9)
    assert evaluation.by_label(odds, targets)[3].tolist() == [0, 0, 0]


def test_certain_and_wrong():
    """A probability of 0 costs as much as in scikit-learn."""
    odds, targets = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 0])
    assert evaluation.mean_log_loss(odds, targets) == pytest.approx(metrics.log_loss(targets, odds, labels=[0, 1]))


def test_confusion_and_labels(rng):
    odds, targets = data(rng)
    guess = odds.argmax(axis=1)
    np.testing.assert_array_equal(evaluation.confusion(odds, targets), metrics.confusion_matrix(targets, guess))
    expected = metrics.precision_recall_fscore_support(targets, guess)[:3]
    np.testing.assert_allclose(evaluation.by_label(odds, targets), np.transpose(expected), rtol=1e-12)


def test_labels_that_are_independent(rng):
    odds, targets = multi(rng)
    expected = metrics.precision_recall_fscore_support(targets, odds > 0.5, zero_division=0)[:3]
    np.testing.assert_allclose(evaluation.by_label(odds, targets), np.transpose(expected), rtol=1e-12)


def test_roc(rng):
    odds, targets = data(rng, n_labels=2)
    scores = odds[:, 1].round(2)  # with equal ones
    curve = evaluation.roc(scores, targets == 1)
    expected = metrics.roc_curve(targets, scores, drop_intermediate=False)[:2]
    np.testing.assert_allclose(curve, np.transpose(expected), rtol=1e-12)
    assert evaluation.area(curve) == pytest.approx(metrics.roc_auc_score(targets, scores), rel=1e-12)


def test_calibration(rng):
    odds, targets = data(rng, n=1000)
    bins = evaluation.calibration(odds, targets)
    best, right = odds.max(axis=1), odds.argmax(axis=1) == targets
    edges = np.quantile(best, np.arange(1, 10) / 10)
    place = np.digitize(best, edges)
    for number, (mean, share, n) in enumerate(bins):
        assert n == 100
        assert mean == pytest.approx(best[place == number].mean(), abs=0.01)
        assert share == pytest.approx(right[place == number].mean(), abs=0.02)
    expected = sum(n / 1000 * abs(mean - share) for mean, share, n in bins)
    assert evaluation.calibration_error(bins) == pytest.approx(expected)


def test_calibration_of_few_predictions_and_of_independent_labels(rng):
    assert len(evaluation.calibration(*data(rng, n=4))) == 4
    odds, targets = multi(rng)
    bins = evaluation.calibration(odds, targets)
    assert bins[:, 2].sum() == odds.size
    assert np.average(bins[:, 1], weights=bins[:, 2]) == pytest.approx(targets.mean())
