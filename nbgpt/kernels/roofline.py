"""What the machine allows: reading memory, and fused multiply-adds. Benchmarks are shares of these."""

from __future__ import annotations

from numba import types

from ..abi.job import PROBE_FLOATS, PROBE_READ, PROBE_REPEATS, SLOT
from ..abi.layout import LANES
from ..simd import (
    at,
    cast,
    fma_tile,
    kernel,
    load,
    row_tile,
    splat,
    store,
    store_tile,
    zero_tile,
)
from .matmul import TILES
from .phases import claim, item_done, wait_for_step
from .tensors import number_field, pointer_field

_cells = pointer_field("cells", types.int64)
probe, _items = number_field("probe"), number_field("probe_items")
_data = pointer_field("probe_data", types.float32)
_FLOP = SLOT["probe_flop"]
_ROWS, _PANELS = TILES["float32"].whole
_INPUTS = 128


@kernel
def read_floats(x, n):  # x [n], n a multiple of 128
    """Sum of x, so that every byte is read; eight chains, so that no addition waits for the one before."""
    a = b = c = d = e = f = g = h = splat(types.float32(0))
    for i in range(0, n, 8 * LANES):
        a, b = a + load(x, i), b + load(x, i + LANES)
        c, d = c + load(x, i + 2 * LANES), d + load(x, i + 3 * LANES)
        e, f = e + load(x, i + 4 * LANES), f + load(x, i + 5 * LANES)
        g, h = g + load(x, i + 6 * LANES), h + load(x, i + 7 * LANES)
    store(x, 0, ((a + b) + (c + d)) + ((e + f) + (g + h)))


@kernel
def multiply_add(x):  # x: a row tile, panels and the result, all in the first-level cache
    """PROBE_REPEATS times the largest tile of the float32 matmul; the result lies behind its operands."""
    weights = at(x, _ROWS * _INPUTS)
    result = at(weights, _PANELS * LANES * _INPUTS)
    for _ in range(PROBE_REPEATS):
        tile = zero_tile(_ROWS, _PANELS)
        for k in range(_INPUTS):
            tile = fma_tile(tile, x, k * _ROWS, 1, row_tile(weights, k * _PANELS * LANES, LANES, _PANELS))
        store_tile(result, 0, _PANELS * LANES, LANES, tile, _PANELS)


@kernel
def measure_limit(job, step, me):
    """Do the items of a probe: read PROBE_FLOATS of memory each, or multiply and add."""
    if me == 0:
        cast(job, types.int64)[_FLOP] = 2 * _ROWS * _PANELS * LANES * _INPUTS * PROBE_REPEATS
    item = claim(_cells(job), step)
    while item < _items(job):
        if probe(job) == PROBE_READ:
            read_floats(at(_data(job), item * PROBE_FLOATS), PROBE_FLOATS)
        else:
            multiply_add(at(_data(job), me * PROBE_FLOATS))
        item_done(_cells(job), step)
        item = claim(_cells(job), step)
    wait_for_step(_cells(job), step, _items(job))
