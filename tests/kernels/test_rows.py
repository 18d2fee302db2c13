"""Where rows of activations are in their buffers."""

import numpy as np
from jobs import new_job
from numba import njit

from nbgpt.abi import layout
from nbgpt.abi.layout import FEW_ROWS, STRIDE
from nbgpt.kernels.rows import are_few, buffer_row, ceil_div, padded, stride_of
from nbgpt.simd import data


@njit(error_model="numpy")
def sizes(out):
    for n in range(len(out)):
        out[n, 0], out[n, 1], out[n, 2] = ceil_div(n, 12), padded(n, 12), stride_of(n)


@njit(error_model="numpy")
def few(job, rows):
    return are_few(data(job), rows)


@njit(error_model="numpy")
def index(row, owner):
    return buffer_row(row, owner)


def test_compiled_sizes_are_those_of_the_layout():
    out = np.zeros((200, 3), np.int64)
    sizes(out)
    assert out.tolist() == [
        [layout.ceil_div(n, 12), layout.padded(n, 12), layout.padded(n, STRIDE)] for n in range(200)
    ]


def test_few_rows_are_those_that_every_thread_prepares():
    assert [few(new_job(), rows) for rows in range(FEW_ROWS + 3)] == [True] * (FEW_ROWS + 1) + [False] * 2
    assert not few(new_job(is_observed=1), 1)


def test_threads_share_no_private_row():
    rows = [index(row, owner) for owner in range(5) for row in range(FEW_ROWS)]
    assert len(set(rows)) == 5 * FEW_ROWS
    assert [index(row, 0) for row in range(100)] == list(range(100))
