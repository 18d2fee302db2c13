"""The probes do the work that benchmarks divide by their time."""

import numpy as np
from jobs import new_job
from numba import njit, types

from nbgpt.abi.job import PROBE_FLOATS, PROBE_MULTIPLY_ADD, PROBE_READ, PROBE_REPEATS, SLOT
from nbgpt.abi.layout import LANES
from nbgpt.kernels.matmul import TILES
from nbgpt.kernels.roofline import measure
from nbgpt.simd import data

ROWS, PANELS = TILES["float32"].whole
N_IN = 128


@njit(error_model="numpy")
def run(job):
    measure(data(job), types.int64(0), types.int64(0), types.int64(0))


def test_every_float_is_read(rng):
    floats = rng.integers(-8, 8, (3, PROBE_FLOATS)).astype(np.float32)  # sums are exact
    expected = floats.sum(axis=1)
    run(new_job(probe=PROBE_READ, probe_items=2, probe_data=floats))
    assert floats[:2, :LANES].sum(axis=1).tolist() == expected[:2].tolist()
    assert floats[2].sum() == expected[2]  # no item


def test_the_flop_of_a_product(rng):
    floats = np.zeros(PROBE_FLOATS, np.float32)
    x, w = rng.integers(-4, 4, (N_IN, ROWS)), rng.integers(-4, 4, (N_IN, PANELS * LANES))
    floats[: x.size], floats[x.size : x.size + w.size] = x.reshape(-1), w.reshape(-1)
    job = new_job(probe=PROBE_MULTIPLY_ADD, probe_items=1, probe_data=floats)
    run(job)
    product = x.T @ w
    result = floats[x.size + w.size :][: product.size].reshape(product.shape)
    np.testing.assert_array_equal(result, product)
    assert job.view(np.int64)[SLOT["probe_flop"]] == 2 * N_IN * product.size * PROBE_REPEATS
