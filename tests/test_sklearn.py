"""TextFeatures as scikit-learn uses transformers: in pipelines, cloned, pickled, and by its own checks."""

import doctest
import inspect
import pickle
import sys

import numpy as np
import pytest
from folders import write_random_model
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import nbgpt
import nbgpt.sklearn
from nbgpt.sklearn import TextFeatures

TEXTS = ["It was a dark night", "the sea", "", "a song " * 9] * 3

APPLY = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_mixin_order",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
)
"""Checks of scikit-learn that need no data, called as they are.

`check_estimator` runs no check at all where the tags say that the input is text (`input_tags.two_d_array` is False);
all others fit random matrices. Those that mean something for texts are below, by the names of scikit-learn's, on texts.
"""
ON_TEXTS = (
    "check_fit_score_takes_y",
    "check_estimators_overwrite_params",
    "check_dont_overwrite_parameters",
    "check_estimators_fit_returns_self",
    "check_estimators_unfitted",
    "check_estimators_pickle",
    "check_pipeline_consistency",
    "check_transformer_general",
    "check_transformers_unfitted",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_dict_unchanged",
    "check_fit_idempotent",
    "check_fit_check_is_fitted",
    "check_n_features_in_after_fitting",
    "check_transformer_get_feature_names_out",
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return str(write_random_model(tmp_path_factory.mktemp("m") / "small"))


@pytest.fixture
def transformer(file):
    return TextFeatures(file, threads=1)


@pytest.mark.parametrize("check", APPLY)
def test_scikit_learns_checks(check, transformer):
    function = getattr(estimator_checks, check, None)
    if function is None:
        pytest.skip(f"this scikit-learn has no {check}")
    wants_class = check == "check_parameters_default_constructible"
    function("TextFeatures", TextFeatures() if wants_class else transformer)


@pytest.mark.parametrize("check", ON_TEXTS)
def test_scikit_learns_checks_on_texts(check, transformer):
    assert hasattr(estimator_checks, check), "scikit-learn calls it otherwise now"
    globals()[f"_{check}"](transformer)


def _check_fit_score_takes_y(transformer):
    assert list(inspect.signature(transformer.fit).parameters)[:2] == ["X", "y"]
    transformer.fit(TEXTS, [0] * len(TEXTS))


def _check_estimators_overwrite_params(transformer):
    before = pickle.dumps(transformer.get_params())
    transformer.fit(TEXTS)
    assert pickle.dumps(transformer.get_params()) == before


def _check_dont_overwrite_parameters(transformer):
    before = {*vars(transformer)}
    transformer.fit(TEXTS)
    assert all(name.endswith("_") and not name.startswith("_") for name in {*vars(transformer)} - before)


def _check_estimators_fit_returns_self(transformer):
    assert transformer.fit(TEXTS) is transformer


def _check_estimators_unfitted(transformer):
    with pytest.raises(NotFittedError):
        transformer.get_feature_names_out()


def _check_transformers_unfitted(transformer):
    with pytest.raises(NotFittedError):
        transformer.transform(TEXTS)


def _check_estimators_pickle(transformer):
    found = transformer.fit_transform(TEXTS)
    data = pickle.dumps(transformer)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data).transform(TEXTS), found)


def _check_pipeline_consistency(transformer):
    targets = [0, 1, 0, 1] * 3
    pipeline = make_pipeline(transformer, LogisticRegression()).fit(TEXTS, targets)
    alone = LogisticRegression().fit(transformer.fit_transform(TEXTS), targets)
    np.testing.assert_array_equal(pipeline.predict_proba(TEXTS), alone.predict_proba(transformer.transform(TEXTS)))


def _check_transformer_general(transformer):
    found = transformer.fit(TEXTS).transform(TEXTS)
    np.testing.assert_array_equal(found, clone(transformer).fit_transform(TEXTS, [0] * len(TEXTS)))
    np.testing.assert_array_equal(found, transformer.transform(np.array(TEXTS, object)))
    assert (found.shape, found.dtype) == ((len(TEXTS), 96), np.float32)


def _check_methods_sample_order_invariance(transformer):
    found = transformer.fit_transform(TEXTS)
    np.testing.assert_array_equal(transformer.transform(TEXTS[::-1]), found[::-1])


def _check_methods_subset_invariance(transformer):
    found = transformer.fit_transform(TEXTS)
    np.testing.assert_array_equal(np.concatenate([transformer.transform([text]) for text in TEXTS]), found)


def _check_dict_unchanged(transformer):
    transformer.fit(TEXTS)
    before = {**vars(transformer)}
    transformer.transform(TEXTS)
    assert vars(transformer) == before


def _check_fit_idempotent(transformer):
    found = transformer.fit(TEXTS).transform(TEXTS)
    np.testing.assert_array_equal(transformer.fit(TEXTS[:2]).transform(TEXTS), found)


def _check_fit_check_is_fitted(transformer):
    from sklearn.utils.validation import check_is_fitted

    with pytest.raises(NotFittedError):
        check_is_fitted(transformer)
    check_is_fitted(transformer.fit(TEXTS))


def _check_n_features_in_after_fitting(transformer):
    assert not hasattr(transformer.fit(TEXTS), "n_features_in_")  # texts have no columns


def _check_transformer_get_feature_names_out(transformer):
    names = transformer.fit(TEXTS).get_feature_names_out()
    assert len(names) == len({*names}) == 96
    assert (names[0], names[-1]) == ("last0", "mean47")


def test_parameters_in_a_search(file):
    pipeline = make_pipeline(TextFeatures(file, threads=1), LogisticRegression())
    grid = {"textfeatures__pooling": ["last", "mean"], "textfeatures__layer": [1, -1]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(TEXTS, [0, 1, 0, 1] * 3)
    assert search.best_params_.keys() == grid.keys()


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_values(file, pooling, layer):
    model = nbgpt.load(file)
    found = TextFeatures(file, pooling, layer).fit_transform(TEXTS[:2])
    for text, vector in zip(TEXTS, found, strict=False):
        states = model.hidden_states(text, layer).astype(np.float64)
        expected = states[-1] if pooling == "last" else states.mean(axis=0)
        np.testing.assert_array_equal(vector, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("options", "texts", "message"),
    [
        ({"pooling": "max"}, TEXTS, "pooling is 'max'"),
        ({"layer": 3}, TEXTS, "layer is 3; it must be from 0"),
        ({}, ["a", 5], r"X\[1\] is 5; it must be a text"),
        ({"threads": 0}, TEXTS, "threads is 0"),
    ],
)
def test_bad_arguments(file, options, texts, message):
    with pytest.raises(ValueError, match=message):
        TextFeatures(file, **options).fit(texts)


def test_one_text_is_no_list(transformer):
    with pytest.raises(TypeError, match="X is the text 'a'; it must be a list of texts"):
        transformer.fit("a")


def test_the_example_of_the_docstring():
    failed, tried = doctest.testmod(nbgpt.sklearn)
    assert tried == 5
    assert failed == 0


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "nbgpt.sklearn")
    with pytest.raises(
        ImportError, match=r'nbgpt\.sklearn needs the package scikit-learn: pip install "nbgpt\[train\]"'
    ):
        import nbgpt.sklearn  # noqa: F401
