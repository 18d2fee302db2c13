"""Sizes of GPT-2s: the published numbers of parameters, Hugging Face's config.json, and one line for what is wrong."""

import math
from dataclasses import replace

import pytest
from models import config_of

from nbgpt.config import ACTIVATIONS, OFFICIAL, GPT2Config
from nbgpt.formats.names import expected_shapes

PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "distilgpt2": 81_912_576,
}
"""`sum(p.numel() for p in model.parameters())` of transformers' models."""


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_sizes_have_the_published_numbers_of_parameters(name):
    assert OFFICIAL[name].n_parameters == PUBLISHED[name]


@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": False}, {"n_labels": 5}, {"n_inner": 100}], ids=str)
def test_parameters_are_those_of_the_tensors(changes):
    config = config_of(**changes)
    assert config.n_parameters == sum(math.prod(shape) for _, shape in expected_shapes(config))


def test_the_feed_forward_layer_is_four_times_as_wide_unless_it_is_given():
    assert config_of(n_embd=48).n_inner == 192
    assert config_of(n_embd=48, n_inner=100).n_inner == 100


def test_attention_scale():
    config = GPT2Config(n_layer=3, n_head=2, n_embd=32)
    assert config.head_dim == 16
    assert config.attention_scale(2) == 0.25
    assert replace(config, scale_attn_by_inverse_layer_idx=True).attention_scale(2) == 0.25 / 3
    assert replace(config, scale_attn_weights=False).attention_scale(2) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 0}, "n_layer is 0; it must be a whole number from 1 to 16777215"),
        ({"n_ctx": 1024.0}, "n_ctx is 1024.0; it must be a whole number"),
        ({"n_vocab": 1 << 24}, "n_vocab is 16777216; it must be a whole number"),
        ({"n_embd": "48"}, "n_embd is '48'; it must be a whole number"),
        ({"n_head": 5}, "n_embd 48 is not a multiple of n_head 5"),
        ({"activation": "mish"}, "activation 'mish' is not one of gelu_new, gelu, relu, silu, tanh, quick_gelu"),
        ({"layer_norm_epsilon": 0.0}, "layer_norm_epsilon is 0.0; it must be between 0 and 1"),
    ],
)
def test_values_out_of_range(changes, message):
    with pytest.raises(ValueError, match=r"^config: ") as error:
        config_of(**changes)
    assert message in str(error.value)


def test_to_dict_and_back():
    config = config_of(n_labels=2, activation="relu", tied_embeddings=False)
    assert GPT2Config(**config.to_dict()) == config


SMALL = {"n_layer": 2, "n_head": 3, "n_embd": 48}


def test_hugging_face_defaults():
    assert GPT2Config.from_hugging_face(SMALL) == GPT2Config(**SMALL)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"n_positions": 64}, {"n_ctx": 64}),
        ({"n_ctx": 64}, {"n_ctx": 64}),
        ({"vocab_size": 300}, {"n_vocab": 300}),
        ({"n_inner": None}, {"n_inner": 192}),
        ({"activation_function": "gelu_pytorch_tanh"}, {"activation": "gelu_new"}),
        ({"tie_word_embeddings": False}, {"tied_embeddings": False}),
        ({"problem_type": "multi_label_classification"}, {"multi_label": True}),
    ],
    ids=str,
)
def test_hugging_face_names(theirs, ours):
    assert GPT2Config.from_hugging_face({**SMALL, **theirs}) == GPT2Config(**{**SMALL, **ours})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**SMALL, "model_type": "llama"}, "model_type is 'llama'; nbgpt runs GPT-2 only"),
        ({"n_head": 3}, "n_layer, n_embd missing; is this the config.json of a GPT-2?"),
        ({**SMALL, "add_cross_attention": True}, "add_cross_attention is true"),
    ],
)
def test_other_architectures_are_refused(config, message):
    with pytest.raises(ValueError, match=r"^config: ") as error:
        GPT2Config.from_hugging_face(config)
    assert message in str(error.value)


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
