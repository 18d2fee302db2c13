"""Phases: every work item once, whichever threads run, and no phase begins before the previous one is done."""

import numpy as np
import pytest
from jobs import new_job, run_threads
from numba import njit, types

from nbgpt.abi.job import PHASES, REGIONS
from nbgpt.kernels.fields import n_rows, n_threads, n_vocab, nll, sampling, x
from nbgpt.kernels.phases import claim_near, claim_next, in_order, make_phase
from nbgpt.simd import data, kernel

CLAIMS = {"next": claim_next, "near": claim_near}


@kernel
def write_item(job, layer, item, thread):
    x(job)[item] += types.float32(item + 1 + layer)


@kernel
def read_from_the_end(job, layer, item, thread):
    nll(job)[item] += x(job)[n_rows(job) - 1 - item]


@kernel
def count_preparations(job, layer, thread):
    sampling(job)[thread] += 1.0


@kernel
def count_ends(job, layer, thread):
    sampling(job)[n_threads(job) + thread] += sampling(job)[thread]  # 1 if the preparation came before


def make_run(claim):
    run = in_order(
        [
            make_phase(n_rows, write_item, claim, count_preparations, count_ends),
            make_phase(n_vocab, write_item, claim),  # no items
            make_phase(n_rows, read_from_the_end, claim),
        ]
    )

    @njit(error_model="numpy", nogil=True)
    def share(job, layer, phase, thread):
        run(data(job), types.int64(layer), types.int64(phase), types.int64(thread))

    return share


RUNS = {name: make_run(claim) for name, claim in CLAIMS.items()}


@pytest.mark.parametrize("n_items", [1, 2, 7, 1000])
@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("claim", CLAIMS)
def test_every_item_once_and_in_order(claim, n_threads, n_items):
    written, read, prepared = np.zeros(n_items, np.float32), np.zeros(n_items), np.zeros((2, n_threads))
    counters = np.zeros(PHASES + 320, np.int64)
    job = new_job(n_rows=n_items, n_threads=n_threads, x=written, nll=read, sampling=prepared, counters=counters)
    run_threads(lambda thread: RUNS[claim](job, 10, 1, thread), n_threads)
    np.testing.assert_array_equal(written, np.arange(n_items) + 11)
    np.testing.assert_array_equal(read, written[::-1])
    assert set(prepared[0]) <= {0, 1}  # once in each thread that had an item
    assert 1 <= prepared[0].sum() <= n_items
    np.testing.assert_array_equal(prepared[1], prepared[0])  # and each of these finished
    phases = counters[PHASES:].reshape(8, REGIONS + 1, 8)[:, 0, 0]
    assert phases.tolist() == [0, n_items, 0, n_items, 0, 0, 0, 0]  # phase 1 and 3: numbers follow from the order


@njit(error_model="numpy")
def claimed(job, n_items, threads, out):
    for i in range(len(out)):
        out[i] = claim_near(data(job), 0, n_items, threads[i % len(threads)])


@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
def test_threads_begin_in_regions_of_their_own_and_end_in_those_of_others(n_threads):
    n_items, regions = 22, min(n_threads, REGIONS)
    out = np.zeros(n_items + 3, np.int64)
    claimed(new_job(n_threads=n_threads), n_items, np.arange(n_threads), out)
    assert out[:regions].tolist() == [region * n_items // regions for region in range(regions)]
    assert sorted(out[:n_items]) == list(range(n_items))
    assert out[n_items:].tolist() == [n_items] * 3
