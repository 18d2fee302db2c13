"""Training from texts to a classifier."""

import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nbgpt
from nbgpt.tasks.training import train as module
from nbgpt.tasks.training.evaluation import accuracy
from nbgpt.tasks.training.train import train_classifier


def by_hand(model, examples, layer, pooling, c):
    """scikit-learn on hidden states that are read and pooled one text at a time."""
    features = []
    for text in examples.texts:
        states = model.hidden_states(text, layer).astype(np.float64)
        parts = {"last": [states[-1]], "mean": [states.mean(axis=0)], "both": [states[-1], states.mean(axis=0)]}
        features.append(np.concatenate(parts[pooling]).astype(np.float32))
    features = np.array(features, np.float64)
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)), features


@pytest.mark.parametrize("which", ["classifier", "binary"])
def test_it_is_scikit_learns_on_the_same_features(which, request, model):
    found = request.getfixturevalue(which)
    seen, head = found.evaluation, found.head
    pipeline, features = by_hand(model, seen.data.training, head.layer, head.pooling, seen.fit.c)
    pipeline.fit(features, seen.data.training.targets)
    _, others = by_hand(model, seen.data.validation, head.layer, head.pooling, seen.fit.c)
    expected = pipeline.predict_proba(others)
    np.testing.assert_allclose(found.predict_proba(seen.data.validation.texts), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(seen.probabilities, expected, rtol=0, atol=1e-6)
    assert (
        seen.scores["this classifier"].accuracy.value
        == (expected.argmax(axis=1) == seen.data.validation.targets).mean()
    )


def test_the_layer_is_that_of_least_loss_in_training(classifier):
    seen = classifier.evaluation
    assert [one.layer for one in seen.by_layer] == [0, 1, 2, 3]
    assert classifier.head.layer == min(seen.by_layer, key=lambda one: one.loss).layer


def test_accuracy_grows_with_the_texts(classifier):
    sizes = classifier.evaluation.by_examples
    assert [one.n for one in sizes] == [6, 12, 24, 48, 96]
    assert sizes[-1].accuracy == classifier.evaluation.scores["this classifier"].accuracy.value
    assert sizes[-1].words == classifier.evaluation.scores["TF-IDF"].accuracy.value
    assert sizes[0].accuracy < sizes[-1].accuracy


def test_baselines(classifier):
    seen = classifier.evaluation
    assert list(seen.scores) == ["this classifier", "TF-IDF", "largest class"]
    assert seen.scores["largest class"].accuracy.value == pytest.approx(1 / 3)
    assert seen.scores["largest class"].log_loss.value == pytest.approx(np.log(3))
    assert seen.scores["this classifier"].accuracy.value > 0.6
    assert seen.notes == ()


def test_the_same_again(model, labelled, classifier, monkeypatch):
    """To the bit, and without the model: the features are kept."""
    monkeypatch.setattr(module, "pooled", None)
    again = train_classifier(model, *labelled, pooling="both")
    np.testing.assert_array_equal(again.head.coefficients, classifier.head.coefficients)
    assert again.evaluation.scores == classifier.evaluation.scores


def test_another_seed_divides_otherwise(model, labelled, classifier, monkeypatch):
    """And does not read the texts again."""
    monkeypatch.setattr(module, "pooled", None)
    other = train_classifier(model, *labelled, pooling="both", seed=1)
    assert other.evaluation.data.validation.texts != classifier.evaluation.data.validation.texts


def test_validation_texts_of_their_own(model, labelled):
    texts, labels = labelled
    other = (
        ["a warm calm sea", "the wolf in the night", "we dance and sing", texts[0]],
        ["calm", "grim", "merry", "calm"],
    )
    found = train_classifier(model, texts, labels, validation=other, layer=2)
    seen = found.evaluation
    assert seen.data.validation.texts == other[0][:3]
    assert seen.notes == ("1 text left out of validation: in training too",)
    expected = accuracy(found.predict_proba(other[0][:3]), np.arange(3))
    assert seen.scores["this classifier"].accuracy.value == expected


def test_independent_labels(model, labelled, tags):
    tagger = train_classifier(model, labelled[0], tags, pooling="mean", layer=1)
    seen = tagger.evaluation
    assert tagger.labels == ("grim", "long", "merry")
    chosen = tagger.predict(labelled[0])
    assert all(isinstance(names, list) for names in chosen)
    right = [
        (label in names) == (label in true) for names, true in zip(chosen, tags, strict=True) for label in tagger.labels
    ]
    assert np.mean(right) > 0.8, np.mean(right)
    odds = tagger.predict_proba(labelled[0][:5])
    assert (odds.shape, odds.dtype) == ((5, 3), np.float64)
    assert not np.allclose(odds.sum(axis=1), 1)
    assert seen.scores["this classifier"].log_loss.value < seen.scores["largest class"].log_loss.value


def test_what_is_said(model, labelled, monkeypatch):
    texts, labels = labelled
    long = [*texts, "9" * 500, "8" * 500, "7" * 500]
    found = train_classifier(model, long, [*labels, "rare", "rare", "calm"], layer=1)
    assert found.evaluation.notes[-2:] == (
        "3 of 123 texts are longer than 200 tokens: their end was read",
        "a label has too few texts for cross-validation: C is 0.01, and the layer the given or last one",
    )
    few = train_classifier(model, texts[:46], labels[:46], layer="auto")
    assert few.evaluation.notes[-1] == "cross-validation in 5 folds, as many as the smallest label has texts" or (
        few.evaluation.fit.n_folds == 5
    )


def test_texts_without_words(model):
    texts = [sign * n for n in range(1, 12) for sign in "!?"]
    found = train_classifier(model, texts, ["a", "b"] * 11)
    assert list(found.evaluation.scores) == ["this classifier", "largest class"]
    assert "no baseline of words: the texts have none that scikit-learn's TF-IDF counts" in found.evaluation.notes
    assert found.evaluation.by_examples[-1].words is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling is 'max'; choose 'last', 'mean' or 'both'"),
        ({"layer": 4}, r"layer is 4; it must be from 0 \(embeddings\) to 3"),
        ({"seed": -1}, "seed is -1; it must be"),
        ({"validation": 1.0}, "validation is 1.0; it must be above 0 and below 1"),
    ],
)
def test_arguments(model, labelled, options, message):
    with pytest.raises(ValueError, match=message):
        train_classifier(model, *labelled, **options)


def test_a_classifier_is_no_base(classifier, labelled, tmp_path):
    loaded = nbgpt.load(classifier.save(tmp_path / "c.safetensors"))
    with pytest.raises(ValueError, match="c is a classifier already: train on its base model"):
        train_classifier(loaded, *labelled)


def test_without_scikit_learn(model, labelled, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'pip install "nbgpt\[train\]"'):
        train_classifier(model, *labelled)
