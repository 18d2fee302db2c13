"""The parts of the forward pass, in order, against the reference; logits are tested in tests/engine/test_engine.py."""

import numpy as np
import pytest
import reference
from models import VARIANTS, config_of, native_params, open_model, random_params, write_native

from nbgpt import weights
from nbgpt.abi.layout import HEAD_DTYPE
from nbgpt.backend.kernel_cache import load_kernels
from nbgpt.engine.kv_cache import Sequence
from nbgpt.kernels.forward import make_attention, make_embedding, make_forward, make_head, make_mlp

IDS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.mark.parametrize("dtype", HEAD_DTYPE)
def test_the_counts_of_phases_are_those_of_the_declarations(dtype):
    head = HEAD_DTYPE[dtype]
    forward = make_forward(dtype, head)
    assert forward.phases_of_layer == len(make_attention(dtype)) + len(make_mlp(dtype)) == 9
    assert forward.other_phases == len(make_embedding(head)) + len(make_head(head)) == 5


def test_an_object_says_how_many_phases_need_counters():
    kernels, forward = load_kernels("float32"), make_forward("float32", "float32")
    assert (kernels.phases_of_layer, kernels.other_phases) == (forward.phases_of_layer, forward.other_phases)


@pytest.mark.parametrize("variant", ["plain", "relu", "epsilon", "inverse_layer_idx"])
def test_the_residual_stream_after_each_layer(tmp_path, variant):
    config = config_of(**VARIANTS[variant], n_layer=3)
    path = write_native(tmp_path / "model.safetensors", random_params(config), config, "float32")
    params, model = native_params(weights.load(path)), open_model(path, n_threads=2)
    x = params["wte.weight"][IDS].astype(np.float64) + params["wpe.weight"][: len(IDS)]
    for layer in range(config.n_layer):
        x = reference.block(x, reference.part(params, f"h.{layer}."), config, layer)
        for ids in (IDS, IDS[:2]):
            sequence = Sequence()
            model.runner.forward(ids, [sequence] * len(ids), [], parts=(0, 2 * layer + 3))
            stream = model.runner.buffers["x"][: len(ids), : config.n_embd]
            np.testing.assert_allclose(stream, x[: len(ids)], atol=1e-5 * np.abs(x).max())
