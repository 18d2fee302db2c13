"""Passes in parts, and edits of the residual stream, against GPT-2 in NumPy that is edited alike."""

import numpy as np
import pytest
import reference
from folders import TOKENIZER, write_random_model
from models import VARIANTS, config_of, open_model, random_params, write_native

from nbgpt import weights
from nbgpt.analysis.passes import attention_part, edited_logits, read_logits, run_parts
from nbgpt.model import Model

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]


def edited_by_reference(ids, params, config, edit):
    """`reference.gpt2` with an edit before each block and before ln_f, float64."""
    x = params["wte.weight"][ids].astype(np.float64) + params["wpe.weight"][: len(ids)]
    for layer in range(config.n_layer):
        x = reference.block(edit(layer, x), reference.part(params, f"h.{layer}."), config, layer)
    x = edit(config.n_layer, x)
    x = reference.layer_norm(x, params["ln_f.weight"], params["ln_f.bias"], config.layer_norm_epsilon)
    return x @ (params["wte.weight"] if config.tied_embeddings else params["lm_head.weight"]).T


def steer(layer, x):
    """Something else in every layer; what is edited at one position changes those after it alone."""
    x = x.copy()
    x[4, layer::3] += 2 + layer
    x[7] *= 0.5
    return x


@pytest.mark.parametrize("name", ["plain", "untied", "inverse_layer_idx", "epsilon"])
def test_edits_against_the_reference(tmp_path, name):
    config = config_of(n_layer=3, **VARIANTS[name])
    params = random_params(config)
    engine = open_model(write_native(tmp_path / "m.safetensors", params, config, "float32"), 2)
    found, expected = edited_logits(engine, IDS, steer), edited_by_reference(IDS, params, config, steer)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    plain = read_logits(engine, IDS)
    assert np.abs(found - plain)[4:].max() > 0.1
    np.testing.assert_array_equal(found[:4], plain[:4])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("n", [1, 2, 20, 190])
def test_an_edit_that_changes_nothing_changes_no_bit(tmp_path, dtype, n):
    config = config_of(n_embd=96, n_layer=3)
    path = write_native(tmp_path / "m.safetensors", random_params(config), config, dtype)
    engine, ids = open_model(path, 2), (10 * IDS)[:n]
    seen = []

    def look(layer, x):
        seen.append((layer, x.shape, x.dtype))
        return x

    np.testing.assert_array_equal(edited_logits(engine, ids, look), read_logits(engine, ids))
    assert seen == [(layer, (n, 96), np.float32) for layer in range(4)]
    assert engine.kv_bytes_in_use == 0


def test_parts_leave_what_the_next_ones_read(tmp_path):
    """Attention and MLP one by one, with logits of some positions alone."""
    config = config_of(n_layer=2)
    engine = open_model(write_native(tmp_path / "m.safetensors", random_params(config), config, "float32"), 2)
    stream = run_parts(engine, IDS, (0, 1))["x"]
    for part in range(1, attention_part(2)):
        stream = run_parts(engine, IDS, (part, part + 1), stream)["x"]
    found = run_parts(engine, IDS, (attention_part(2), engine.runner.n_parts), stream, [2, 19])["logits"]
    np.testing.assert_array_equal(found, read_logits(engine, IDS)[[2, 19]])


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "None at layer 0"),
        (np.zeros((3, 48)), r"float64 \[3, 48\] at layer 0; it must return the stream, float32 \[20, 48\]"),
        (np.zeros((20, 48), complex), "complex128"),
        ("stream", "'stream'"),
    ],
)
def test_an_edit_that_returns_no_stream(tmp_path, returned, said):
    model = Model(weights.load(write_random_model(tmp_path / "m.safetensors")), 1)
    with pytest.raises(ValueError, match=f"edit returned {said}"):
        model.logits(IDS, edit=lambda layer, x: returned)
    assert model.logits([], edit=lambda layer, x: x).shape == (0, TOKENIZER.n_vocab)
    assert model.engine.kv_bytes_in_use == 0
