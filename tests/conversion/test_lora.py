"""LoRA adapters against W + alpha / r * B @ A in NumPy; tests/parity/test_peft.py has PEFT itself."""

import json

import numpy as np
import pytest
from folders import checkpoint_of, text_config
from models import random_params
from safetensors.numpy import save_file

from nbgpt.conversion.lora import merge, parse_lora
from nbgpt.formats import FormatError

CONFIG = text_config()
PARAMS = random_params(CONFIG)
BASE = checkpoint_of(CONFIG, PARAMS)
SETTINGS = {"peft_type": "LORA", "r": 4, "lora_alpha": 10}
C_ATTN, C_FC = "transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_fc"


def pair(module, n_in, n_out, r=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"base_model.model.{module}.lora_A.weight": rng.standard_normal((r, n_in), np.float32),
        f"base_model.model.{module}.lora_B.weight": rng.standard_normal((n_out, r), np.float32),
    }


MATRICES = pair(C_ATTN, 48, 144) | pair(C_FC, 48, 192, seed=1)


def write(folder, tensors=MATRICES, **settings):
    folder.mkdir(exist_ok=True)
    save_file(dict(tensors), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**SETTINGS, **settings}))
    return folder


def delta(tensors, module):
    a, b = (np.float64(tensors[f"base_model.model.{module}.lora_{side}.weight"]) for side in "AB")
    return (b @ a).T


def check(checkpoint, expected):
    """The tensors of expected are those, all the others are the base model's."""
    for name, tensor in checkpoint.tensors.items():
        values = tensor.read()
        assert values.shape == tensor.shape
        if name in expected:
            assert values.flags.c_contiguous
            np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(values, PARAMS[name], err_msg=name)


def sums(*parts):
    """Module -> its matrix with (factor, tensors) added."""
    return {
        f"{module.removeprefix('transformer.')}.weight": PARAMS[f"{module.removeprefix('transformer.')}.weight"]
        + sum(factor * delta(tensors, module) for factor, tensors in parts)
        for module in (C_ATTN, C_FC)
    }


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 2.5),
        ({"use_rslora": True}, 5.0),
        ({"lora_alpha": 3}, 0.75),
        ({"fan_in_fan_out": True, "rank_pattern": {"c_fc": 4}}, 2.5),
        ({"alpha_pattern": {"c_attn": 8, "h.1.mlp.c_fc": 8, "fc": 1}, "lora_alpha": 99}, 2.0),
    ],
)
def test_matrices_are_added(tmp_path, settings, scale):
    folder = write(tmp_path / "adapter", **settings)
    merged = merge(BASE, [(folder, 1.0)])
    check(merged, sums((scale, MATRICES)))
    assert merged.config == CONFIG
    assert merged.files == [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
    assert merged.notes == ("merged 2 matrices of the LoRA adapter 'adapter', weight 1",)


def test_several_adapters_with_weights(tmp_path):
    other = pair(C_ATTN, 48, 144, seed=5) | pair(C_FC, 48, 192, r=2, seed=6)
    one, two = write(tmp_path / "one"), write(tmp_path / "two", other, r=2, use_rslora=True)
    merged = merge(BASE, [(one, 0.5), (two, -1.0)])
    expected = sums((0.5 * 2.5, MATRICES))
    expected["h.0.attn.c_attn.weight"] += -5 * delta(other, C_ATTN)
    expected["h.1.mlp.c_fc.weight"] += -10 / 2**0.5 * delta(other, C_FC)
    check(merged, expected)


def test_tensors_that_are_saved_whole(tmp_path):
    """Biases, modules_to_save, and a classifier's score, which the base model does not have."""
    whole = {"transformer.h.0.attn.c_attn.base_layer.bias": 144, "transformer.ln_f.bias": 48}
    tensors = {f"base_model.model.{name}": np.arange(n, dtype=np.float32) for name, n in whole.items()}
    tensors["base_model.model.score.weight"] = np.ones((3, 48), np.float32)
    folder = write(tmp_path / "adapter", MATRICES | tensors)
    merged = merge(BASE, [(folder, 1.0)])
    assert merged.config.n_labels == 3
    assert merged.config.tied_embeddings
    expected = {"score.weight": np.ones((3, 48)), "ln_f.bias": np.arange(48), "h.0.attn.c_attn.bias": np.arange(144)}
    check(merged, sums((2.5, MATRICES)) | expected)
    with pytest.raises(FormatError, match="takes the place of the base model's: the weight must be 1"):
        merge(BASE, [(folder, 0.5)])


def test_an_adapted_head_is_tied_no_longer(tmp_path):
    n_vocab = CONFIG.n_vocab
    tensors = pair("lm_head", 48, n_vocab)
    tensors["base_model.model.lm_head.base_layer.weight"] = PARAMS["wte.weight"]
    merged = merge(BASE, [(write(tmp_path / "adapter", tensors), 0.5)])
    assert not merged.config.tied_embeddings
    check(merged, {"lm_head.weight": PARAMS["wte.weight"] + 0.5 * 2.5 * delta(tensors, "lm_head").T})


def test_an_adapted_embedding_leaves_the_head_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, CONFIG.n_vocab), np.float32), rng.standard_normal((48, 4), np.float32)
    place = "base_model.model.transformer.wte.lora_embedding_"
    merged = merge(BASE, [(write(tmp_path / "adapter", {f"{place}A": a, f"{place}B": b}), 1.0)])
    check(merged, {"wte.weight": PARAMS["wte.weight"] + 2.5 * (b @ a).T, "lm_head.weight": PARAMS["wte.weight"]})


DORA = {f"base_model.model.{C_ATTN}.lora_magnitude_vector": np.ones(144, "f4")}
HALF = {name: values for name, values in MATRICES.items() if "lora_A" in name}


@pytest.mark.parametrize(
    ("tensors", "settings", "message"),
    [
        (MATRICES, {"peft_type": "IA3"}, "peft_type is 'IA3', not 'LORA': merge it with PEFT"),
        (MATRICES, {"lora_alpha": None}, "lora_alpha is None; it must be a number"),
        (MATRICES, {"lora_alpha": "10"}, "lora_alpha is '10'; it must be a number"),
        (MATRICES, {"lora_alpha": 10**400}, "lora_alpha is 1000.*; it must be a number"),
        (
            MATRICES,
            {"alpha_pattern": {"h\\.\\d+": 3}},
            "alpha_pattern .* is more than names of modules: merge it with PEFT",
        ),
        (MATRICES, {"alpha_pattern": [1]}, "alpha_pattern .* is more than names"),
        (MATRICES | DORA, {}, "lora_magnitude_vector is of another kind of LoRA: merge it with PEFT"),
        (HALF, {}, r"c_attn.weight needs A .* found \[\(4, 48\)\]; save it again"),
        (pair(C_ATTN, 48, 144, r=0), {}, "needs A"),
        (pair(C_ATTN, 48, 145), {}, r"c_attn.weight of the adapter is \[48, 145\], the base model's is \[48, 144\]"),
        (
            pair("transformer.h.2.attn.c_attn", 48, 144),
            {},
            r"h.2.attn.c_attn.weight .* the base model has none: convert",
        ),
        (pair("lm_head", 48, CONFIG.n_vocab), {"ensure_weight_tying": True}, "ensure_weight_tying is true: merge it"),
        ({"base_model.model.score.weight": np.ones(3, "f4")}, {}, r"score.weight of the adapter is \[3\]"),
        (
            {"base_model.model.transformer.wte.weight": np.ones((9, 48), "f4")},
            {},
            r"wte.weight of the adapter is \[9, 48",
        ),
    ],
)
def test_adapters_that_do_not_fit(tmp_path, tensors, settings, message):
    with pytest.raises(FormatError, match=message) as caught:
        merge(BASE, [(write(tmp_path / "adapter", tensors, **settings), 1.0)])
    assert "\n" not in str(caught.value)


def test_folders_without_an_adapter(tmp_path):
    for make in (lambda: None, lambda: (tmp_path / "adapter_config.json").write_text("{}")):
        make()
        with pytest.raises(
            FormatError, match=r"no LoRA adapter; PEFT saves one as adapter_config.json and adapter_mod"
        ):
            merge(BASE, [(tmp_path, 1.0)])


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path, weight):
    with pytest.raises(ValueError, match=f"the adapter's weight is {weight}"):
        merge(BASE, [(write(tmp_path / "adapter"), weight)])


def test_a_folder_with_its_weight(tmp_path):
    (tmp_path / "a:2").mkdir()
    assert parse_lora("a") == (parse_lora("./a")[0], 1.0)
    for text, folder, weight in [("a:0.5", "a", 0.5), ("a:-1", "a", -1), ("a:b", "a:b", 1), (":1", ":1", 1)]:
        assert tuple(map(str, parse_lora(text))) == (folder, str(float(weight)))
    assert parse_lora(str(tmp_path / "a:2")) == (tmp_path / "a:2", 1.0)
