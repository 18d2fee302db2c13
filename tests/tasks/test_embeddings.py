"""Hidden states and vectors of texts, against the reference in float64."""

import threading

import numpy as np
import pytest
import reference
from folders import TOKENIZER, text_config, write_text_model
from models import random_params

import nbgpt

CONFIG = text_config(n_layer=3, n_ctx=700)
PARAMS = random_params(CONFIG)
EOS = TOKENIZER.eos_id
TEXTS = [
    "It was a dark and stormy night.",
    "",
    "a",
    "Naïve café 😀 日本語",
    "It was a dark and stormy night. " * 30,
    "9",
] * 4  # several passes, and texts that lie in two of them
LONG = "a" * 690


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        dtype: write_text_model(folder / f"{dtype}.safetensors", CONFIG, PARAMS, dtype) for dtype in ("float32", "int8")
    }


@pytest.fixture(scope="module")
def model(files):
    return nbgpt.load(files["float32"], threads=2)


def ln_f(x):
    return reference.layer_norm(x, PARAMS["ln_f.weight"], PARAMS["ln_f.bias"])


def states_of(ids, layer):
    """What `reference.gpt2` has after some layers."""
    x = PARAMS["wte.weight"][ids].astype(np.float64) + PARAMS["wpe.weight"][: len(ids)]
    for number in range(layer):
        x = reference.block(x, reference.part(PARAMS, f"h.{number}."), CONFIG, number)
    return ln_f(x) if layer == CONFIG.n_layer else x


def check(found, expected):
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("text", [TEXTS[0], "", LONG], ids=["short", "empty", "long"])
def test_hidden_states(model, text, layer):
    ids = TOKENIZER.encode(text) or [EOS]
    assert len(ids) > 512 or text != LONG  # rows of a pass
    expected = states_of(ids, layer)
    check(model.hidden_states(text, layer), expected)
    np.testing.assert_array_equal(model.hidden_states(text, layer - 4), model.hidden_states(text, layer))
    assert model.engine.kv_bytes_in_use == 0


def test_the_last_layer_is_what_logits_are_made_from(model):
    ids = TOKENIZER.encode(TEXTS[0])
    logits = model.logits(ids)
    found = model.hidden_states(TEXTS[0]) @ PARAMS["wte.weight"].T
    assert np.abs(found - logits).max() <= 1e-5 * np.abs(logits).max()


def test_a_beginning_has_a_row_of_its_own(model, tmp_path):
    ids = [EOS, *TOKENIZER.encode(TEXTS[0])]
    found = model.hidden_states(TEXTS[0], 2, bos=True)
    check(found, states_of(ids, 2))
    begins = nbgpt.load(write_text_model(tmp_path / "m.safetensors", CONFIG, PARAMS, bos=True))
    np.testing.assert_array_equal(begins.hidden_states(TEXTS[0], 2), found)


def test_states_are_the_callers_own(model):
    first = model.hidden_states(TEXTS[0], 1)
    kept = first.copy()
    model.hidden_states(TEXTS[3], 1)
    np.testing.assert_array_equal(first, kept)


def test_hidden_states_of_quantized_weights(files):
    """A sanity check: near the originals."""
    found, expected = nbgpt.load(files["int8"]).hidden_states(TEXTS[0]), states_of(TOKENIZER.encode(TEXTS[0]), 3)
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.1 * expected.std()


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_embed(model, pooling, bos):
    expected = []
    for text in TEXTS[:6]:
        ids = TOKENIZER.encode(text)
        states = states_of([EOS, *ids] if bos or not ids else ids, 3)[bos and len(ids) > 0 :]
        expected.append(states[-1] if pooling == "last" else states.mean(axis=0))
    expected = np.array(expected)
    check(model.embed(TEXTS[:6], pooling, normalize=False, bos=bos), expected)
    lengths = np.sqrt((expected**2).sum(axis=1, keepdims=True))
    check(model.embed(TEXTS[:6], pooling, bos=bos), expected / lengths)
    np.testing.assert_allclose(np.linalg.norm(model.embed(TEXTS[:6], pooling), axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_batch_is_each_text_alone_to_the_bit(files, pooling, dtype):
    model = nbgpt.load(files[dtype], threads=2)
    alone = np.concatenate([model.embed([text], pooling) for text in TEXTS])
    np.testing.assert_array_equal(model.embed(TEXTS, pooling), alone)
    assert model.embed([], pooling).shape == (0, CONFIG.n_embd)
    assert model.engine.kv_bytes_in_use == 0


def test_the_cache_does_not_grow_with_the_number_of_texts(files):
    model = nbgpt.load(files["float32"])
    model.embed(["a"] * 600)
    few = len(model.engine.cache.memory)
    model.embed(["a"] * 6000)
    assert len(model.engine.cache.memory) == few


def test_threads_may_share_a_model(model):
    alone, found = model.embed(TEXTS), [None] * 6

    def work(n):
        found[n] = model.embed(TEXTS)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for vectors in found:
        np.testing.assert_array_equal(vectors, alone)
    assert model.engine.kv_bytes_in_use == 0


def test_one_text_or_several(model):
    for pooling, layer in (("mean", -1), ("last", 1)):
        several = model.embed(TEXTS[:3], pooling, layer=layer)
        for text, vector in zip(TEXTS[:3], several, strict=True):
            np.testing.assert_array_equal(model.embed(text, pooling, layer=layer), vector)
            np.testing.assert_array_equal(model.embed(model.encode(text), pooling, layer=layer), vector)
    for text, states in zip(TEXTS, model.hidden_states(TEXTS, 2), strict=True):
        np.testing.assert_array_equal(states, model.hidden_states(text, 2))
    assert model.hidden_states([], 2) == []
    assert model.embed([]).shape == (0, CONFIG.n_embd)


def test_vectors_of_a_layer_in_the_middle(model):
    rows = states_of(TOKENIZER.encode(TEXTS[0]), 1)
    check(model.embed(TEXTS[0], layer=1, normalize=False), rows.mean(axis=0))
    check(model.embed([TEXTS[0]], "last", layer=1), (rows[-1] / np.linalg.norm(rows[-1]))[None])


def test_bad_requests(model):
    with pytest.raises(ValueError, match=r"layer is 4; it must be from 0"):
        model.embed("a", layer=4)
    with pytest.raises(ValueError, match=r"layer is 4; it must be from 0 \(embeddings\) to 3 .* or from -4 to -1"):
        model.hidden_states("a", 4)
    with pytest.raises(ValueError, match="layer is -5"):
        model.hidden_states("a", -5)
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        model.hidden_states("a", 1.5)
    with pytest.raises(ValueError, match="pooling is 'max'; choose 'mean' or 'last'"):
        model.embed(["a"], "max")
    too_long = r"text '9+ has \d+ tokens; this model's context is 700: shorten it, or cut it into several"
    for ask in (lambda: model.embed(["a", "9" * 2000]), lambda: model.hidden_states("9" * 2000)):
        with pytest.raises(ValueError, match=too_long):
            ask()
    assert model.engine.kv_bytes_in_use == 0
