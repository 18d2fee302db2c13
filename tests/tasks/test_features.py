"""Pooled hidden states, against the reference in float64."""

import numpy as np
import pytest
import reference
from folders import TOKENIZER, text_config, write_text_model
from models import random_params

import nbgpt
from nbgpt.tasks.features import checked_pooling, encode_truncated, pooled

TEXTS = ["It was a dark and stormy night.", "a", "Naïve café 😀 日本語", "It was " * 30, "the end"] * 12
CONFIG = text_config(n_layer=3)
BOS = TOKENIZER.bos_id


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder, params = tmp_path_factory.mktemp("m"), random_params(CONFIG)
    files = {dtype: write_text_model(folder / dtype, CONFIG, params, dtype) for dtype in ("float32", "int8")}
    return {dtype: nbgpt.load(file, threads=2) for dtype, file in files.items()}, params


def twin(ids, params, layer, pooling):
    """The same in float64, from the reference's hidden states."""
    states = params["wte.weight"][ids].astype(np.float64) + params["wpe.weight"][: len(ids)]
    for number in range(layer):
        states = reference.block(states, reference.part(params, f"h.{number}."), CONFIG, number)
    if layer == CONFIG.n_layer:
        states = reference.layer_norm(states, params["ln_f.weight"], params["ln_f.bias"])
    rows = states[1:] if ids[0] == BOS and len(ids) > 1 else states
    parts = {"last": [states[-1]], "mean": [rows.mean(axis=0)], "both": [states[-1], rows.mean(axis=0)]}
    return np.concatenate(parts[pooling])


@pytest.mark.parametrize("pooling", ["last", "mean", "both"])
@pytest.mark.parametrize("bos", [False, True])
def test_values(models, pooling, bos):
    (loaded, params), layers = models, [0, 1, 2, 3]
    model = loaded["float32"]
    batch, _ = encode_truncated(model.engine, TOKENIZER, TEXTS, bos)
    found = pooled(model.engine, batch, layers, pooling, BOS)
    assert found.dtype == np.float32
    assert found.shape == (4, len(TEXTS), CONFIG.n_embd * (2 if pooling == "both" else 1))
    for layer in layers:
        for number in range(5):
            expected = twin(batch[number], params, layer, pooling)
            error = np.abs(found[layer, number] - expected).max()
            assert error <= 1e-5 * max(1, np.abs(expected).max())
    assert model.engine.kv_bytes_in_use == 0


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_bits_depend_on_nothing_else(models, dtype):
    """Not on the other texts, their order, the number of layers, or where the passes of 512 rows cut a text."""
    engine = models[0][dtype].engine
    batch, _ = encode_truncated(engine, TOKENIZER, TEXTS, True)
    assert sum(map(len, batch)) > 1100
    together = pooled(engine, batch, [0, 2, 3], "both", BOS)
    backwards = pooled(engine, batch[::-1], [2], "both", BOS)[0, ::-1]
    np.testing.assert_array_equal(together[1], backwards)
    for number in range(0, len(batch), 7):
        alone = pooled(engine, [batch[number]], [2, 3], "both", BOS)
        np.testing.assert_array_equal(together[1:, number], alone[:, 0])


def test_one_layer_is_what_hidden_states_gives(models):
    model = models[0]["int8"]
    for layer in range(4):
        batch, _ = encode_truncated(model.engine, TOKENIZER, TEXTS[:1], True)
        states = model.hidden_states(TEXTS[0], layer, bos=True)
        last = pooled(model.engine, batch, [layer], "last", BOS)[0, 0]
        np.testing.assert_array_equal(last, states[-1])


@pytest.mark.parametrize("bos", [False, True])
def test_the_end_of_a_long_text_is_read(models, bos):
    model, text = models[0]["float32"], "9" * 500 + " the end"
    ids = TOKENIZER.encode(text)
    [[*kept], [*short]], n = encode_truncated(model.engine, TOKENIZER, [text, "a"], bos)
    assert n == 1
    assert kept == ([BOS, *ids[-199:]] if bos else ids[-200:])
    assert short == [BOS] * bos + TOKENIZER.encode("a")


def test_nothing_and_other_poolings(models):
    assert pooled(models[0]["int8"].engine, [], [1, 3], "both", BOS).shape == (2, 0, 96)
    with pytest.raises(ValueError, match="pooling is 'max'; choose 'last', 'mean' or 'both'"):
        checked_pooling("max")
