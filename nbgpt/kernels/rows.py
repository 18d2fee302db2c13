"""Rows of activations in the buffers of a job: their strides, and which rows a thread keeps for itself."""

from __future__ import annotations

from ..abi import layout
from ..abi.layout import FEW_ROWS, STRIDE
from ..simd import kernel
from .fields import is_observed

ceil_div, padded = kernel(layout.ceil_div), kernel(layout.padded)


@kernel
def stride_of(n):
    """Floats from one row of n to the next."""
    return padded(n, STRIDE)


@kernel
def are_few(job, rows):
    """True if each thread prepares all rows for itself, which takes less time than waiting for other threads.

    The prepared rows are then in `buffer_row(row, thread)` and not in `row`, so an observed job never does this.
    """
    return rows <= FEW_ROWS and is_observed(job) == 0


@kernel
def buffer_row(row, owner):
    """Index of a row in a buffer that has FEW_ROWS rows for each thread.

    owner: the thread whose rows these are, if there are few; else 0, and all threads share the buffer.
    """
    return owner * FEW_ROWS + row
