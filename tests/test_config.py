"""What `config.json` may say, and what is made of it."""

import pytest

from nbgpt.config import ACTIVATIONS, GPT2Config

SIZES = {"n_layer": 2, "n_head": 3, "n_embd": 48, "n_positions": 100}
OTHER_NAMES = {
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
    "n_positions": "max_position_embeddings",
}


def test_sizes_under_the_names_of_every_architecture():
    renamed = {OTHER_NAMES[name]: size for name, size in SIZES.items()}
    assert GPT2Config.from_hugging_face(renamed) == GPT2Config.from_hugging_face(SIZES)
    assert GPT2Config.from_hugging_face(renamed | SIZES).n_ctx == 100


@pytest.mark.parametrize(("name", "other"), OTHER_NAMES.items())
def test_a_size_that_is_given_twice_must_be_one(name, other):
    with pytest.raises(ValueError, match=f"{name} is {SIZES[name]} and {other} is 96, .*: keep the right one"):
        GPT2Config.from_hugging_face({**SIZES, other: 96})


def test_every_activation_keeps_its_number():
    """Jobs hold the number; kernels that were compiled before know no other order."""
    assert ACTIVATIONS == ("gelu_new", "gelu", "relu", "silu", "tanh", "quick_gelu")


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="activation 'mish' is not one of gelu_new, gelu, relu, silu, tanh, quick_gel"):
        GPT2Config.from_hugging_face({**SIZES, "activation_function": "mish"})
