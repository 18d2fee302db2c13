"""Exported folders: read back by nbgpt, and heads that have no such form. tests/parity compares with transformers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from folders import TOKENIZER, write_random_model
from models import native_params

import nbgpt
from nbgpt.tasks.training.export import export, fold
from nbgpt.tokenizer import ByteBPE

TEXTS = ["calm sea", "", "a wolf at night", "dance and sing " * 20]


@pytest.mark.parametrize("which", ["binary", "tagger"])
def test_a_folder_is_the_same_model(which, request, tmp_path):
    found = request.getfixturevalue(which)
    found.export(tmp_path / "f")
    model = nbgpt.load(tmp_path / "f", dtype="float32", threads=1)
    assert model.tokenizer == TOKENIZER
    assert model.weights.bos == found.bos
    expected = found.predict_proba(TEXTS)
    for one, odds in zip(model.classify(TEXTS), expected, strict=True):
        assert list(one.probabilities) == list(found.labels)
        np.testing.assert_allclose(list(one.probabilities.values()), odds, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "int4"])
def test_weights_are_the_numbers_that_the_types_stand_for(dtype, base, binary, tmp_path):
    from safetensors.numpy import load_file

    weights = nbgpt.weights.load(write_random_model(tmp_path / dtype, dtype, n_layer=2, n_inner=100))
    head = replace(binary.head, layer=2)
    export(weights, TOKENIZER, head, True, tmp_path / "f")
    stored = load_file(tmp_path / "f" / "model.safetensors")
    expected = native_params(weights)
    assert stored.keys() - {"score.weight"} == {f"transformer.{name}" for name in expected}
    for name, values in expected.items():
        if name == "ln_f.bias":
            continue
        found = stored[f"transformer.{name}"]
        plain = values if isinstance(values, np.ndarray) else values_of(values)
        assert found.dtype == np.float32
        plain = plain.T if name.startswith("h.") and not isinstance(values, np.ndarray) else plain
        np.testing.assert_allclose(found, plain, rtol=1e-6, atol=1e-7)
    assert json.loads((tmp_path / "f" / "tokenizer_config.json").read_text())["add_bos_token"] is True


def values_of(quantized):
    """A matrix of the reference as numbers [n_out, n_in]."""
    return getattr(quantized, "T", quantized).weights()


def test_gpt2s_own_vocabulary(binary, base, tmp_path):
    """The merge table that nbgpt ships is recovered from the ranks, to the byte."""
    from nbgpt.paths import shipped

    weights = nbgpt.weights.load(base)
    export(weights, ByteBPE.shipped(), binary.head, False, tmp_path)
    assert (tmp_path / "merges.txt").read_bytes() == shipped("vocab.bpe").read_bytes()
    assert ByteBPE.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt") == ByteBPE.shipped()


def test_other_heads_have_no_such_form(classifier, binary, tmp_path):
    with pytest.raises(
        ValueError, match="cannot export pooling 'both': GPT2ForSequenceClassification reads the last tok"
    ):
        classifier.export(tmp_path / "f")
    assert not (tmp_path / "f").exists()
    with pytest.raises(ValueError, match="cannot export layer 1: GPT2ForSequenceClassification reads the last, 3"):
        fold(replace(binary.head, layer=1), 3)
    same = replace(binary.head, coefficients=np.ones((2, 48)), intercept=np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"cannot export: the intercept does not go into ln_f\.bias"):
        fold(same, 3)


def test_fold(binary, rng):
    head = binary.head
    score, shift = fold(head, 3)
    states = rng.standard_normal((20, 48)) * 5 + 3
    np.testing.assert_allclose((states + shift) @ score.T.astype(np.float64), head.logits(states), rtol=0, atol=1e-4)
