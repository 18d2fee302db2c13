"""Parts that are switched off, against the reference without them."""

import numpy as np
import pytest
import reference
from folders import TOKENIZER, text_config
from models import VARIANTS, config_of, open_model, random_params, write_native

from nbgpt.analysis.ablation import ablate, ablate_each, ablated_logits, flop_of_all
from nbgpt.analysis.passes import read_logits
from nbgpt.analysis.trace import trace
from nbgpt.config import OFFICIAL

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]


def without(params, config, off):
    """The same parameters with zeros in the rows of attn.c_proj of a head, and in mlp.c_proj of an MLP."""
    params = {name: array.copy() for name, array in params.items()}
    for layer, head in off:
        if head == config.n_head:
            params[f"h.{layer}.mlp.c_proj.weight"][:] = 0
            params[f"h.{layer}.mlp.c_proj.bias"][:] = 0
        else:
            size = config.head_dim
            params[f"h.{layer}.attn.c_proj.weight"][head * size : (head + 1) * size] = 0
    return params


@pytest.mark.parametrize("name", ["plain", "inverse_layer_idx", "untied"])
@pytest.mark.parametrize("off", [[(0, 0)], [(2, 1)], [(1, 3)], [(2, 3)], [(0, 2), (0, 3), (2, 0), (2, 2)]])
def test_logits_without_parts(tmp_path, name, off):
    config = config_of(n_layer=3, **VARIANTS[name])
    params = random_params(config)
    engine = open_model(write_native(tmp_path / "m.safetensors", params, config, "float32"), 2)
    found = np.concatenate(list(ablated_logits(engine, trace(engine, TOKENIZER, IDS), off)))
    expected = reference.gpt2(IDS, without(params, config, off), config)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    assert np.abs(found - read_logits(engine, IDS)).max() > 0.05


@pytest.fixture
def model(tmp_path):
    config = text_config(n_layer=3)
    params = random_params(config)
    return open_model(write_native(tmp_path / "m.safetensors", params, config, "float32"), 2), params


def test_every_part_by_itself(model):
    engine, params = model
    config = engine.config
    found = ablate_each(engine, TOKENIZER, trace(engine, TOKENIZER, IDS))
    whole = reference.softmax(reference.gpt2(IDS, params, config)[-1])
    parts = [(layer, head) for layer in range(config.n_layer) for head in range(config.n_head + 1)]
    assert len(found.ids) == len(parts)
    for case, part in enumerate(parts):
        expected = reference.softmax(reference.gpt2(IDS, without(params, config, [part]), config)[-1])
        np.testing.assert_allclose(found.probabilities[case], np.sort(expected)[::-1][:10], rtol=1e-3)
        np.testing.assert_allclose(expected[found.ids[case]], found.probabilities[case], rtol=1e-3)
        assert abs(found.divergence[case] - (whole * np.log2(whole / expected)).sum()) < 1e-3
    assert found.divergence.max() > 0.1
    assert set(found.texts) == set(found.ids.ravel().tolist())


def test_predictions_after_every_token(model):
    engine, params = model
    off = [(0, 1), (2, 3)]
    found = ablate(engine, TOKENIZER, trace(engine, TOKENIZER, IDS), off)
    expected = reference.softmax(reference.gpt2(IDS, without(params, engine.config, off), engine.config))
    whole = reference.softmax(reference.gpt2(IDS, params, engine.config))
    np.testing.assert_allclose(found.probabilities[:, 0], expected.max(axis=1), rtol=1e-3)
    np.testing.assert_allclose(found.divergence, (whole * np.log2(whole / expected)).sum(axis=1), atol=1e-3)


def test_nothing_off_is_the_model_itself(model):
    engine, _ = model
    found = np.concatenate(list(ablated_logits(engine, trace(engine, TOKENIZER, IDS), [])))
    np.testing.assert_array_equal(found, read_logits(engine, IDS))


@pytest.mark.parametrize("part", [(3, 0), (-1, 0), (0, 4), (0, -1)])
def test_parts_that_do_not_exist(model, part):
    engine, _ = model
    with pytest.raises(ValueError, match=f"there is no part {part[1]} in layer {part[0]}"):
        next(ablated_logits(engine, trace(engine, TOKENIZER, IDS), [part]))


def test_what_it_costs():
    """156 parts, each half of the layers of 7.08 million weights, and a row of logits."""
    expected = 156 * (2 * 10 * 6 * 7_077_888 + 2 * 50257 * 768)
    assert abs(flop_of_all(OFFICIAL["gpt2"], 10) / expected - 1) < 1e-6


def test_logits_of_a_long_text_are_not_all_in_memory(model, monkeypatch):
    """Pieces of it say what one would."""
    engine, _ = model
    seen, off = trace(engine, TOKENIZER, IDS), [(0, 1)]
    expected = ablate(engine, TOKENIZER, seen, off)
    monkeypatch.setattr("nbgpt.analysis.passes.MAX_LOGIT_ROWS", 5)
    assert [len(logits) for logits in ablated_logits(engine, seen, off)] == [5, 5, 2]
    found = ablate(engine, TOKENIZER, seen, off)
    for name in ("ids", "probabilities", "divergence"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.texts == expected.texts
