"""The logit lens at the end of a text, beside the trace and the model's logits."""

import numpy as np
import pytest
from folders import TOKENIZER, write_random_model

import nbgpt
from nbgpt.analysis.lens import logit_lens
from nbgpt.operations import softmax


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with nbgpt.load(write_random_model(tmp_path_factory.mktemp("lens") / "random.safetensors", n_layer=3)) as model:
        yield model


def test_rows_are_those_of_the_trace(model):
    ids = TOKENIZER.encode("It was a dark and stormy night")
    lens = logit_lens(model.engine, ids)
    assert lens.shape == (model.config.n_layer + 1, model.config.n_vocab)
    np.testing.assert_array_equal(lens[-1], model.logits(ids)[-1])
    trace = model.trace(ids)
    for row, top, probabilities in zip(lens, trace.lens_ids[:, -1], trace.lens_probabilities[:, -1], strict=True):
        assert np.argsort(-row, kind="stable")[: len(top)].tolist() == top.tolist()
        np.testing.assert_array_equal(softmax(row[None])[0][top], probabilities)


def test_a_text_of_one_token_and_of_the_whole_context(model):
    for ids in ([1], [2] * model.config.n_ctx):
        np.testing.assert_array_equal(logit_lens(model.engine, ids)[-1], model.logits(ids)[-1])


def test_its_pages_are_given_back(model):
    before = model.engine.cache.n_used
    for n in (1, 50):
        logit_lens(model.engine, [3] * n)
    assert model.engine.cache.n_used == before


@pytest.mark.parametrize("n", [0, 10_000])
def test_bad_lengths(model, n):
    with pytest.raises(ValueError, match=f"the text has {n} tokens; it must have from 1 to"):
        logit_lens(model.engine, [1] * n)
