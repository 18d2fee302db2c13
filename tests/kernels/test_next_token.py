"""The phases that follow the logits: sampled ids, and NLL of targets, each from its own row."""

import numpy as np
import pytest
from jobs import new_job
from numba import njit, types

from nbgpt.abi.layout import SAMPLING_BUCKETS, padded, sampling_floats
from nbgpt.kernels.next_token import make_sample, make_score
from nbgpt.kernels.phases import in_order
from nbgpt.simd import data

N_VOCAB, ROWS = 61, 4


def run(planes, **slots):
    phases = in_order([make_sample(planes), make_score(planes)])

    @njit(error_model="numpy")
    def run(job):
        phases(data(job), types.int64(0), types.int64(0), types.int64(0))

    stride = sampling_floats(N_VOCAB)
    scratch = {"buckets": np.zeros(SAMPLING_BUCKETS), "candidates": np.zeros(stride, np.float32)}
    run(new_job(n_vocab=N_VOCAB, n_choices=N_VOCAB, candidates_stride=stride, **scratch, **slots))


@pytest.mark.parametrize("planes", [1, 2])
def test_each_row_has_its_own_logits(rng, planes):
    logits = rng.standard_normal((ROWS * planes, padded(N_VOCAB, 64)), np.float32)
    sampling = np.array([(0.0, 0, 1, 0.5), (1.0, 1, 1, 0.5), (1.0, 0, 1e-9, 0.5)])  # three ways to take the largest
    sampled, targets, nll = np.full(ROWS, -1, np.int32), np.array([0, 7, 60], np.int32), np.full(ROWS, -1.0)
    slots = {"logits": logits, "sampling": sampling, "sampled": sampled, "targets": targets, "nll": nll}
    run(planes, n_sampled=3, n_targets=3, **slots)
    rows = logits[::planes, :N_VOCAB].astype(np.float64)
    assert sampled.tolist() == [*rows[:3].argmax(axis=1), -1]
    expected = np.log(np.exp(rows[:3]).sum(axis=1)) - rows[range(3), targets]
    np.testing.assert_allclose(nll[:3], expected, rtol=1e-6)
    assert nll[3] == -1


def test_nothing_is_asked_for():
    run(1, n_sampled=0, n_targets=0, logits=np.zeros((1, 64), np.float32))
