"""The whole forward pass against the reference, for every architecture and every type of weights."""

from dataclasses import replace

import numpy as np
import pytest
import reference
from models import VARIANTS, config_of, native_params, open_model, random_params, read, write_native

from nbgpt.engine.kv_cache import Sequence

TOLERANCE = 1e-5  # of float32 logits, relative to the largest
variants = pytest.mark.parametrize("config", [config_of(**changes) for changes in VARIANTS.values()], ids=VARIANTS)


def logits_and_expected(tmp_path, config, dtype, texts, params=None):
    """Logits after every token of texts that are read side by side, and those of the reference."""
    path = write_native(tmp_path / "model.safetensors", params or random_params(config), config, dtype)
    model = open_model(path, n_threads=2)
    sequences = [Sequence() for _ in texts]
    rows = [(int(token), sequence) for text, sequence in zip(texts, sequences, strict=True) for token in text]
    logits = model.runner.forward([row[0] for row in rows], [row[1] for row in rows], range(len(rows))).copy()
    stored = native_params(model.weights)
    return logits, np.concatenate([reference.gpt2(text, stored, config) for text in texts])


@variants
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_float_logits_up_to_the_last_position(tmp_path, rng, dtype, config):
    text = rng.integers(0, config.n_vocab, config.n_ctx)
    logits, expected = logits_and_expected(tmp_path, config, dtype, [text])
    assert np.abs(logits - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


@variants
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_integer_logits(tmp_path, rng, dtype, config):
    """The reference rounds activations as the kernels do, so most texts agree almost as float32 would.

    In the others, one of ten thousands of activations is so near the middle between two numbers that it goes the other
    way, which is a small error: a rounding of the logits' 16 bits, or one of a layer's 8.
    """
    texts = rng.integers(0, config.n_vocab, (24, 8))
    logits, expected = logits_and_expected(tmp_path, config, dtype, texts)
    errors = np.abs(logits - expected).reshape(len(texts), -1).max(axis=1) / np.abs(expected).max()
    assert np.median(errors) <= 3e-5
    assert errors.max() <= 0.03


def test_bfloat16_logits(tmp_path, rng):
    """As above, with steps of a 256th: more texts have an activation that is rounded the other way."""
    texts = rng.integers(0, 61, (24, 8))
    logits, expected = logits_and_expected(tmp_path, config_of(n_embd=60, n_inner=100), "bfloat16", texts)
    errors = np.abs(logits - expected).reshape(len(texts), -1).max(axis=1) / np.abs(expected).max()
    assert errors.min() <= 1e-6
    assert errors.max() <= 0.03


def test_texts_of_several_passes(tmp_path, rng):
    config = config_of(n_ctx=700)
    text = rng.integers(0, config.n_vocab, 700).tolist()
    model = open_model(write_native(tmp_path / "model.safetensors", random_params(config), config, "float32"), 2)
    expected = reference.gpt2(text, random_params(config), config)
    tolerance = TOLERANCE * np.abs(expected).max()
    for logits, rows in (
        (model.runner.append(Sequence(), text), -1),
        (np.concatenate(list(model.logits(text))), slice(None)),
    ):
        assert logits.shape == expected[rows].shape
        assert np.abs(logits - expected[rows]).max() <= tolerance
    expected_nll = -np.log(reference.softmax(expected)[np.arange(699), text[1:]])
    for first in (1, 130, 600):
        np.testing.assert_allclose(model.nll(text, first), expected_nll[first - 1 :], rtol=0, atol=2 * tolerance)


@pytest.mark.parametrize("name", ["gelu", "relu", "inverse_layer_idx", "unscaled", "untied", "epsilon"])
def test_each_variant_moves_the_logits(rng, name):
    """By more than a hundred times the tolerance, or the tests above would not see it left out."""
    config = config_of(**VARIANTS[name])
    params = random_params(config)
    plain = replace(config, **{field: getattr(config_of(), field) for field in VARIANTS[name]})
    text = rng.integers(0, config.n_vocab, 50)
    expected, without = (reference.gpt2(text, params, one) for one in (config, plain))
    assert np.abs(expected - without).max() > 100 * TOLERANCE * np.abs(expected).max()


def test_quantized_weights_are_near_the_originals(tmp_path, rng):
    """A sanity check of the whole chain, which the tests above do not compare with what was converted."""
    config = config_of(n_vocab=300)
    params, text = random_params(config), rng.integers(0, 300, 100)
    exact = reference.gpt2(text, params, config)
    for dtype, bound in (("float32", 1e-5), ("float16", 1e-2), ("bfloat16", 5e-2), ("int8", 0.1), ("int4", 1.0)):
        logits, _ = logits_and_expected(tmp_path, config, dtype, [text])
        assert np.sqrt(np.mean((logits - exact) ** 2)) < bound * exact.std()


def test_activations_of_nothing(tmp_path, rng):
    """A ReLU that lets through next to nothing: denormal numbers in whole groups of a quantized matrix' inputs."""
    config = config_of(activation="relu", n_inner=128)
    params = random_params(config)
    params["h.0.mlp.c_fc.weight"][:, :64] = 0
    for tiny in (0, 1e-45, 1e-39, 1e-37, 1e-30, 1e-20):
        params["h.0.mlp.c_fc.bias"][:64] = tiny
        for dtype in ("int8", "int4"):
            logits, expected = logits_and_expected(tmp_path, config, dtype, [rng.integers(0, 61, 8)], params)
            assert np.abs(logits - expected).max() <= 0.03 * np.abs(expected).max()


def test_outlier_channels(tmp_path, rng):
    """Residual stream of 3e3 in one channel and a final gain of 17 in another, as trained GPT-2s have them."""
    config = config_of(n_embd=96)
    params = random_params(config)
    params["wpe.weight"][:, 7] = 3e3
    params["ln_f.weight"][11] = 17
    text = rng.integers(0, config.n_vocab, 100)
    logits, expected = logits_and_expected(tmp_path, config, "float32", [text], params)
    assert np.abs(logits - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


@pytest.mark.parametrize("changes", [{"n_embd": 40, "n_head": 2}, {"n_inner": 100}], ids=str)
def test_a_pass_that_overflows_leaves_nothing_behind(tmp_path, rng, changes):
    config = config_of(tied_embeddings=False, **changes)
    params = random_params(config)
    params["wte.weight"][0, 3] = params["wpe.weight"][3, 3] = 3e38  # token 0 in place 3 is infinite
    path = write_native(tmp_path / "model.safetensors", params, config, "float32")
    model, fresh = open_model(path), open_model(path)
    sequence = Sequence()
    assert np.isnan(read(model, [0] * 100, sequence)).any()
    model.free(sequence)
    text = rng.integers(1, config.n_vocab, 100)
    expected = read(fresh, text)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(read(model, text), expected)


def test_errors_name_the_value(tmp_path):
    config = config_of()
    model = open_model(write_native(tmp_path / "model.safetensors", random_params(config), config, "float32"))
    for token in (-1, 61):
        with pytest.raises(ValueError, match=f"token {token} is not in 0..60"):
            read(model, [0, token])
    sequence = Sequence()
    read(model, [1] * 199, sequence)
    with pytest.raises(ValueError, match="longer than 200 tokens"):
        read(model, [1, 2], sequence)
    assert sequence.length == 199  # as if nothing had been asked
    assert read(model, [1], sequence).shape == (1, 61)
    with pytest.raises(ValueError, match="threads is 0"):
        open_model(tmp_path / "model.safetensors", n_threads=0)
