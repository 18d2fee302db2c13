"""The addresses of tensors: of the model, and of each layer."""

import numpy as np
from jobs import file_of, new_job
from numba import njit

from nbgpt.abi.job import LAYER_TENSORS, MODEL_TENSORS
from nbgpt.kernels.tensors import matrix, vector
from nbgpt.simd import data

N_LAYER = 3
_bias, _gain, _matrix, _head = (
    vector("mlp.c_proj.bias"),
    vector("ln_f.weight"),
    matrix("attn.c_attn"),
    matrix("lm_head"),
)


@njit(error_model="numpy")
def first_numbers(job, layer):
    """Of two vectors a float, of two matrices a byte of each part."""
    job = data(job)
    a, b = _matrix(job, layer), _head(job, layer)
    return _bias(job, layer)[0], _gain(job, layer)[0], a[0][0], a[1][0], a[2][0], b[0][0], b[1][0], b[2][0]


def test_every_tensor_is_found_by_its_name_and_layer():
    names = [*MODEL_TENSORS, *(f"{layer}.{name}" for layer in range(N_LAYER) for name in LAYER_TENSORS)]
    weights, offsets = file_of({name: np.array([number, 1, 2, 3], np.uint8) for number, name in enumerate(names)})
    numbers = {name: number for number, name in enumerate(names)}
    model_offsets = np.array([offsets[name] for name in MODEL_TENSORS])
    layer_offsets = np.array([[offsets[f"{layer}.{name}"] for name in LAYER_TENSORS] for layer in range(N_LAYER)])
    job = new_job(weights=weights, model_offsets=model_offsets, layer_offsets=layer_offsets)
    floats = {name: weights[offset : offset + 4].view(np.float32)[0] for name, offset in offsets.items()}
    for layer in range(N_LAYER):
        c_attn = [numbers[f"{layer}.attn.c_attn.weight{part}"] for part in ("", ".scale", ".offset")]
        head = [numbers[f"lm_head.weight{part}"] for part in ("", ".scale", ".offset")]
        expected = floats[f"{layer}.mlp.c_proj.bias"], floats["ln_f.weight"], *c_attn, *head
        assert first_numbers(job, layer) == expected
