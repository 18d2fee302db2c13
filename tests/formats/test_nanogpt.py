"""nanoGPT's ckpt.pt: the sizes from model_args, Linear's matrices, and layers without biases."""

import numpy as np
import pytest
from formats.test_pytorch import EXPECTED, write_state

from nbgpt.formats import FormatError, open_checkpoint

ARGS = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 24, "vocab_size": 61, "dropout": 0.0, "bias": True}
ENDLESS = ()  # written out, 2^100 pairs of parentheses
for _ in range(100):
    ENDLESS = (ENDLESS, ENDLESS)


def linear(tensors):
    """Conv1D's matrices [n_in, n_out] as Linear's [n_out, n_in]."""
    return {name: np.ascontiguousarray(a.T) if ".c_" in name and a.ndim == 2 else a for name, a in tensors.items()}


def write(path, tensors=EXPECTED, prefix="transformer.", **args):
    state = {prefix + name: values for name, values in linear(tensors).items()}
    state[f"{prefix.removesuffix('transformer.')}lm_head.weight"] = tensors["wte.weight"]
    optimizer = {"state": {0: {"step": np.ones(1, "f4"), "exp_avg": tensors["ln_f.weight"]}}, "param_groups": []}
    saved = {"model": state, "optimizer": optimizer, "model_args": {**ARGS, **args}, "iter_num": 100}
    return write_state(path, saved)


def check(checkpoint, expected=EXPECTED):
    assert checkpoint.tensors.keys() == expected.keys()
    for name, tensor in checkpoint.tensors.items():
        np.testing.assert_array_equal(tensor.read(), expected[name], err_msg=name)


@pytest.mark.parametrize("prefix", ["transformer.", "_orig_mod.transformer."])
def test_a_training_checkpoint(tmp_path, prefix):
    write(tmp_path / "ckpt.pt", prefix=prefix)
    for path in (tmp_path, tmp_path / "ckpt.pt"):
        checkpoint = open_checkpoint(path)
        check(checkpoint)
        config = checkpoint.config
        assert (config.n_layer, config.n_head, config.n_embd, config.n_ctx, config.n_vocab) == (2, 2, 16, 24, 61)
        assert config.activation == "gelu"
        assert config.tied_embeddings
        assert any("nn.GELU" in note for note in checkpoint.notes)


def test_layers_without_biases(tmp_path):
    weights = {name: values for name, values in EXPECTED.items() if name.endswith("weight")}
    expected = {name: values if name in weights else np.zeros_like(values) for name, values in EXPECTED.items()}
    check(open_checkpoint(write(tmp_path / "ckpt.pt", weights, bias=False)), expected)
    with pytest.raises(FormatError, match=r"h.0.ln_1.bias \[16\] is missing"):
        open_checkpoint(write(tmp_path / "ckpt.pt", weights))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"n_layer": 3, "bias": False}, r"h.2.ln_1.weight \[16\] is missing"),
        ({"n_layer": (1 << 24) - 1, "bias": False}, r"h.2.ln_1.weight \[16\] is missing"),
        ({"n_layer": 1}, "is no part of a GPT-2 of 1 layers"),
        ({"n_embd": 32}, r"wte.weight is \[61, 16\]; the config asks for \[61, 32\]"),
        ({"n_head": 3}, "model_args: config: n_embd 16 is not a multiple of n_head 3"),
        ({"block_size": 0}, "model_args: config: n_ctx is 0"),
        ({"block_size": None}, "model_args: block_size is a NoneType; it must be a whole number"),
        ({"n_layer": ENDLESS}, "model_args: n_layer is a tuple; it must be a whole number"),
        ({"use_rmsnorm": True}, "model_args has 'use_rmsnorm', .* is it of a fork"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, args, message):
    with pytest.raises(FormatError, match=message):
        open_checkpoint(write(tmp_path / "ckpt.pt", **args))


def test_arguments_that_are_missing(tmp_path):
    with pytest.raises(FormatError, match="model_args lacks n_head, n_embd, block_size, vocab_size; is this"):
        open_checkpoint(
            write_state(tmp_path / "ckpt.pt", {"model": {"a": np.ones(1, "f4")}, "model_args": {"n_layer": 1}})
        )
