"""Embeddings of tokens that are stored in panels: to the bit."""

import functools

import numpy as np
import pytest
import reference
from numba import njit
from reference import padded

from nbgpt.kernels.token_embedding import EMBEDS
from nbgpt.simd import data


@functools.cache
def compiled(dtype):
    embed = EMBEDS[dtype]

    @njit(error_model="numpy")
    def run(out, token, position, values, scales, n_embd, n_in):
        embed(data(out), token, data(position), (data(values), data(scales), data(scales)), n_embd, n_in)

    return run


def embedded(dtype, token, position, values, scales=None, group=1):
    n_embd = len(position)
    out = np.full(n_embd + 1, np.nan, np.float32)
    scales = np.zeros(1, np.float16) if scales is None else scales
    arrays = (np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in (values, scales))
    compiled(dtype)(out, token, position, *arrays, n_embd, padded(n_embd, group))
    assert np.isnan(out[-1])
    return out[:-1]


@pytest.mark.parametrize("n_embd", [1, 7, 48, 65])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_float_embeddings(rng, dtype, n_embd):
    wte = rng.standard_normal((61, n_embd), np.float32).astype(dtype)
    position = rng.standard_normal(n_embd, np.float32)
    values = np.full((4, n_embd, 16), np.nan, dtype)
    values[reference.place_float(*np.indices(wte.shape))] = wte
    for token in (0, 15, 16, 31, 60):
        expected = wte[token].astype(np.float32) + position
        np.testing.assert_array_equal(embedded(dtype, token, position, values), expected)


@pytest.mark.parametrize("n_embd", [1, 7, 48, 65])
def test_bfloat16_embeddings(rng, n_embd):
    wte = reference.bfloat16(rng.standard_normal((61, n_embd), np.float32), reference.LEAST_WEIGHT)
    position = rng.standard_normal(n_embd, np.float32)
    values = np.full((4, padded(n_embd, 32) // 2, 16, 2), 0x7FC0, np.uint16)  # NaN
    values[reference.place_bfloat16(*np.indices(wte.shape))] = wte.view(np.uint32) >> 16
    for token in (0, 15, 16, 31, 60):
        out = embedded("bfloat16", token, position, values, group=32)
        np.testing.assert_array_equal(out, wte[token] + position)


@pytest.mark.parametrize("n_embd", [1, 7, 48, 64, 130])
def test_int8_embeddings(rng, n_embd):
    n_in, group = padded(n_embd, 64), 64
    numbers = rng.integers(-127, 128, (61, n_in))
    scales = rng.standard_normal((61, n_in // group)).astype(np.float16)
    position = rng.standard_normal(n_embd, np.float32)
    values, stored_scales = np.zeros((4, n_in // 4, 16, 4), np.uint8), np.zeros((4, n_in // group, 16), np.float16)
    values[reference.place_int8(*np.indices(numbers.shape))] = numbers + 128
    stored_scales[reference.place_scale(*np.indices(scales.shape))] = scales
    for token in (0, 15, 16, 31, 60):
        weights = numbers[token].astype(np.float32) * np.repeat(scales[token], group).astype(np.float32)
        out = embedded("int8", token, position, values, stored_scales, group)
        np.testing.assert_array_equal(out, weights[:n_embd] + position)
