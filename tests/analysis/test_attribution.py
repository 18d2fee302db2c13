"""Direct logit attribution: shares add up to the logit, and each is what the reference finds by taking a part away."""

import numpy as np
import pytest
import reference
from folders import TOKENIZER
from models import VARIANTS, config_of, open_model, random_params, write_native

from nbgpt.analysis.attribution import attribute, attribute_mean, part_names
from nbgpt.analysis.passes import read_logits
from nbgpt.analysis.trace import trace

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
POSITIONS = np.array([0, 5, 11])
TARGETS = np.array([[1, 7], [2, 2], [60, 0]], np.int32)


def attributed(tmp_path, config, params, dtype="float32"):
    engine = open_model(write_native(tmp_path / "m.safetensors", params, config, dtype), 2)
    traced = trace(engine, TOKENIZER, IDS)
    logits = np.take_along_axis(read_logits(engine, IDS)[POSITIONS].astype(np.float64), TARGETS, axis=1)
    return traced, logits, attribute(traced, POSITIONS, TARGETS, logits)


def parts_by_reference(params, config):
    """What each part adds to the stream, float64 [n_parts - 2, n, n_embd]; then the sum, and the attentions' biases."""
    x = params["wte.weight"][IDS].astype(np.float64) + params["wpe.weight"][: len(IDS)]
    parts, biases = [x], np.zeros(config.n_embd)
    for layer in range(config.n_layer):
        block = reference.part(params, f"h.{layer}.")
        attn, size = reference.part(block, "attn."), config.head_dim
        normed = reference.layer_norm(x, block["ln_1.weight"], block["ln_1.bias"], config.layer_norm_epsilon)
        q, k, v = np.split(reference.linear(normed, attn["c_attn.weight"], attn["c_attn.bias"]), 3, axis=1)
        for head in range(config.n_head):
            own = slice(head * size, (head + 1) * size)
            mixed = reference.attention(q[:, own], k[:, own], v[:, own], config.attention_scale(layer))
            parts.append(mixed @ attn["c_proj.weight"][own])
        biases = biases + attn["c_proj.bias"]
        x = x + sum(parts[-config.n_head :]) + attn["c_proj.bias"]
        normed = reference.layer_norm(x, block["ln_2.weight"], block["ln_2.bias"], config.layer_norm_epsilon)
        parts.append(reference.mlp(normed, reference.part(block, "mlp."), config.activation))
        x = x + parts[-1]
    return np.array(parts), x, biases


@pytest.mark.parametrize("name", ["plain", "untied", "inverse_layer_idx", "epsilon", "head_dim 20"])
def test_shares_are_those_of_the_reference(tmp_path, name):
    config = config_of(**VARIANTS[name])
    params = random_params(config)
    _, logits, shares = attributed(tmp_path, config, params)
    assert shares.shape == (3, 2, len(part_names(config.n_layer, config.n_head)))
    np.testing.assert_allclose(shares.sum(axis=-1), logits, rtol=1e-12)
    assert np.abs(shares[..., -1]).max() < 1e-3  # what is left: without it they are as exact
    parts, x, biases = parts_by_reference(params, config)
    head = params["wte.weight" if config.tied_embeddings else "lm_head.weight"].astype(np.float64)
    for m, position in enumerate(POSITIONS):
        deviation = np.sqrt(x[position].var() + config.layer_norm_epsilon)
        for c, token in enumerate(TARGETS[m]):

            def share(vector, deviation=deviation, token=token):
                return ((vector - vector.mean()) / deviation * params["ln_f.weight"]) @ head[token]

            expected = [share(part[position]) for part in parts]
            expected.append(share(biases) + params["ln_f.bias"] @ head[token])
            np.testing.assert_allclose(shares[m, c, :-1], expected, rtol=0, atol=2e-5 * np.abs(logits).max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "int4"])
def test_with_rounding_shares_still_add_up(tmp_path, dtype):
    config = config_of(n_embd=96)
    _, logits, shares = attributed(tmp_path, config, random_params(config), dtype)
    np.testing.assert_allclose(shares.sum(axis=-1), logits, rtol=1e-12)
    assert np.abs(shares[..., -1]).max() < 0.05 * np.abs(logits).max()


def test_shares_of_the_mean(tmp_path):
    config = config_of()
    engine = open_model(write_native(tmp_path / "m.safetensors", random_params(config), config, "float32"), 2)
    found = attribute_mean(trace(engine, TOKENIZER, IDS), POSITIONS)
    expected = read_logits(engine, IDS)[POSITIONS].mean(axis=1)
    np.testing.assert_allclose(found.sum(axis=1), expected, rtol=0, atol=1e-4)


def test_names():
    assert part_names(1, 2) == ["embedding", "layer 0, head 0", "layer 0, head 1", "layer 0, MLP", "biases", "rounding"]
