"""A linear layer as phases: LayerNorm, product, bias and activation, for any number of rows and threads."""

import numpy as np
import pytest
import reference
from jobs import file_of, new_job, run_threads
from numba import njit, types

from nbgpt.abi.job import LAYER_TENSORS
from nbgpt.abi.layout import FEW_ROWS, ROW_TILE, padded
from nbgpt.kernels.fields import inner, ln_2, n_embd, n_inner, n_rows
from nbgpt.kernels.linear import activate_inner, make_linear, make_norm
from nbgpt.kernels.matmul import MATMULS
from nbgpt.kernels.phases import in_order
from nbgpt.simd import data

N_IN, N_OUT, LAYER, MAX_THREADS = 40, 200, 1, 4
ROWS = (1, FEW_ROWS, FEW_ROWS + 1, MATMULS["float32"].height, 30)


_source = make_norm("ln_2", ln_2)
_phases = in_order(
    make_linear(MATMULS["float32"], n_rows, _source, "mlp.c_fc", (n_embd, n_inner), inner, then=activate_inner)
)


@njit(error_model="numpy", nogil=True)
def run(job, thread):
    _phases(data(job), types.int64(LAYER), types.int64(0), types.int64(thread))


class Layer:
    def __init__(self, rng):
        self.gain, self.ln_bias = rng.standard_normal((2, N_IN), np.float32)
        self.bias = rng.standard_normal(N_OUT, np.float32)
        self.w = rng.standard_normal((N_IN, N_OUT), np.float32)
        panels = np.zeros((padded(N_OUT, 32) // 16, N_IN, 16), np.float32)
        o, k = np.indices((N_OUT, N_IN))
        panels[reference.place_float(o, k)] = self.w.T
        vectors = {"ln_2.weight": self.gain, "ln_2.bias": self.ln_bias, "mlp.c_fc.bias": self.bias}
        tensors = {name: np.pad(values, (0, 32)) for name, values in vectors.items()} | {"mlp.c_fc.weight": panels}
        self.weights, offsets = file_of(tensors)
        self.offsets = np.zeros((LAYER + 1, len(LAYER_TENSORS)), np.int64)
        self.offsets[LAYER] = [offsets.get(name, 0) for name in LAYER_TENSORS]

    def __call__(self, x, n_threads, is_observed=False):
        rows, stride_in, stride_out = len(x), padded(N_IN, 64), padded(N_OUT, 64)
        stream, out = np.zeros((rows, stride_in), np.float32), np.zeros((rows, stride_out), np.float32)
        stream[:, :N_IN] = x
        normed = np.zeros((max(rows, FEW_ROWS * n_threads), stride_in), np.float32)
        packed = np.zeros((padded(rows, ROW_TILE) + ROW_TILE * n_threads) * N_IN, np.float32)
        unused = np.zeros(packed.size, np.float32)
        sizes = {"n_rows": rows, "n_embd": N_IN, "n_inner": N_OUT, "n_threads": n_threads, "is_observed": is_observed}
        buffers = {"x": stream, "ln_2": normed, "inner": out, "packed": packed, "packed_sums": unused}
        buffers |= {"packed_scales": unused, "weights": self.weights, "layer_offsets": self.offsets}
        job = new_job(**sizes, **buffers, epsilon=1e-5, activation=1)
        run_threads(lambda thread: run(job, thread), n_threads)
        return out[:, :N_OUT], normed[:, :N_IN]


def test_against_the_reference(rng):
    layer, x = Layer(rng), rng.standard_normal((max(ROWS), N_IN), np.float32)
    normed = reference.layer_norm(x.astype(np.float64), layer.gain, layer.ln_bias)
    expected = reference.gelu(reference.linear(normed, layer.w, layer.bias))
    for rows in ROWS:
        out, _ = layer(x[:rows], 1)
        np.testing.assert_allclose(out, expected[:rows], atol=2e-5)


@pytest.mark.parametrize("rows", ROWS)
def test_rows_and_threads_change_no_bit(rng, rows):
    layer, x = Layer(rng), rng.standard_normal((max(ROWS), N_IN), np.float32)
    expected, _ = layer(x, 1)
    for n_threads in (1, 2, MAX_THREADS):
        np.testing.assert_array_equal(layer(x[:rows], n_threads)[0], expected[:rows])


def test_an_observed_job_fills_the_shared_buffer(rng):
    layer, x = Layer(rng), rng.standard_normal((1, N_IN), np.float32)
    _, normed = layer(x, 2, is_observed=True)
    np.testing.assert_allclose(normed[:1], reference.layer_norm(np.float64(x), layer.gain, layer.ln_bias), atol=1e-5)
