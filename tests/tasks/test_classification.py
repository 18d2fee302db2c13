"""Classifiers as transformers saves them, against the reference in float64."""

import json

import numpy as np
import pytest
import reference
from folders import TOKENIZER, text_config, write_folder, write_random_model
from models import random_params

import nbgpt
from nbgpt.conversion.convert import convert
from nbgpt.formats import open_checkpoint

TEXTS = ["It was a dark and stormy night.", "a", "", "Naïve café 😀 日本語", "It was " * 30] * 3
NAMES = {"0": "grim", "1": "neutral", "2": "merry"}


def folder_of(folder, n_labels=3, **fields):
    """A folder with a classifier, and its weights."""
    config = text_config(n_labels=n_labels)
    params = random_params(config)
    write_folder(folder, config, params)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **fields}))
    return folder, params


def load(folder, dtype="float32"):
    convert(open_checkpoint(folder), dtype, folder / "native")
    return nbgpt.load(folder / "native", threads=2)


def logits_of(text, params):
    ids = TOKENIZER.encode(text) or [TOKENIZER.eos_id]
    with_head = {**params, "lm_head.weight": params["score.weight"]}  # what the last states are projected by
    return reference.gpt2(np.array(ids), with_head, text_config(tied_embeddings=False))[-1]


@pytest.mark.parametrize("n_labels", [1, 2, 3, 17])
def test_logits_and_probabilities(tmp_path, n_labels):
    folder, params = folder_of(tmp_path / "m", n_labels)
    model = load(folder)
    results = model.classify(TEXTS)
    for text, result in zip(TEXTS, results, strict=True):
        expected = logits_of(text, params)
        assert (result.logits.shape, result.logits.dtype) == ((n_labels,), np.float32)
        assert np.abs(result.logits - expected).max() <= 1e-5 * max(1, np.abs(expected).max())
        odds = reference.softmax(expected) if n_labels > 1 else 1 / (1 + np.exp(-expected))
        assert list(result.probabilities) == [f"LABEL_{n}" for n in range(n_labels)]
        np.testing.assert_allclose(list(result.probabilities.values()), odds, rtol=0, atol=1e-4)
        assert result.label == f"LABEL_{expected.argmax()}"
    assert len({result.logits.tobytes() for result in results}) == 5
    assert model.engine.kv_bytes_in_use == 0


def test_any_number_of_labels_may_hold(tmp_path):
    """As the config says, by each label's own sigmoid."""
    folder, params = folder_of(tmp_path / "m", problem_type="multi_label_classification")
    [result] = load(folder).classify(TEXTS[:1])
    odds = 1 / (1 + np.exp(-logits_of(TEXTS[0], params)))
    np.testing.assert_allclose(list(result.probabilities.values()), odds, rtol=0, atol=1e-4)
    assert result.label == f"LABEL_{odds.argmax()}"


def test_only_one_label_may_hold(tmp_path):
    folder, _ = folder_of(tmp_path / "m", problem_type="single_label_classification")
    [result] = load(folder).classify(TEXTS[:1])
    assert sum(result.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_batch_is_each_text_alone_to_the_bit(tmp_path, dtype):
    model = load(folder_of(tmp_path / "m")[0], dtype)
    for text, result in zip(TEXTS, model.classify(TEXTS), strict=True):
        [alone] = model.classify([text])
        np.testing.assert_array_equal(result.logits, alone.logits)
        assert result.probabilities == alone.probabilities
    assert model.classify([]) == []


def test_labels_have_the_names_of_the_config(tmp_path):
    model = load(folder_of(tmp_path / "m", id2label=dict(reversed(NAMES.items())))[0])
    assert json.loads(model.weights.metadata["labels"]) == list(NAMES.values())
    [result] = model.classify(["a"])
    assert isinstance(result, nbgpt.Classification)
    assert list(result.probabilities) == list(NAMES.values())
    assert result.label == NAMES[str(result.logits.argmax())]


@pytest.mark.parametrize(
    "id2label",
    [{"0": "a", "1": "b"}, {**NAMES, "3": "more"}, {**NAMES, "2": "grim"}, {"0": "a", "1": "b", "3": "c"}, []],
)
def test_names_that_do_not_fit_the_head(tmp_path, id2label):
    folder, _ = folder_of(tmp_path / "m", id2label=id2label)
    with pytest.raises(nbgpt.FormatError, match=r"config\.json: id2label is .*; score.weight has 3 labels: name each"):
        open_checkpoint(folder)


def test_other_models_have_no_labels(tmp_path):
    """Though their config often has transformers' default for two."""
    folder, _ = folder_of(tmp_path / "m", n_labels=0, id2label={"0": "LABEL_0", "1": "LABEL_1"})
    model = load(folder)
    assert "labels" not in model.weights.metadata
    with pytest.raises(ValueError, match=r"has no classification head \(score\.weight\); `rank` chooses"):
        model.classify(["a"])


def test_bad_texts(tmp_path):
    model = nbgpt.load(write_random_model(tmp_path / "m.safetensors", n_labels=3))
    with pytest.raises(TypeError, match="texts is the text 'a'; it must be a list of texts"):
        model.classify("a")
    with pytest.raises(ValueError, match="this model's context is 200: shorten it"):
        model.classify(["9" * 1000])
