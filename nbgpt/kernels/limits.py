"""What the machine allows: reading memory, and fused multiply-adds. Benchmarks are shares of these."""

from __future__ import annotations

from numba import types

from ..job import PROBE_FLOATS, PROBE_READ, PROBE_REPEATS, SLOT
from ..layout import LANES, PANELS, ROW_TILE
from ..simd import (
    at,
    cast,
    fma_tile,
    int64_in,
    kernel,
    load,
    load_tile,
    pointer_in,
    splat,
    store,
    store_tile,
    zero_tile,
)
from ..simd.codegen import TARGET
from .team import claim, item_done, wait_for_step

_PROBE, _ITEMS, _DATA, _CELLS = SLOT["probe"], SLOT["probe_items"], SLOT["probe_data"], SLOT["cells"]
_FLOP = SLOT["probe_flop"]
_ROWS = ROW_TILE if TARGET.avx512 else 3
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
def multiply_add(x):  # x [at least (ROW_TILE + 32) * _INPUTS]: a row tile, two panels and the result, all in L1
    """PROBE_REPEATS times the largest tile of the float32 matmul; the result lies behind its operands."""
    weights = at(x, _ROWS * _INPUTS)
    result = at(weights, PANELS * LANES * _INPUTS)
    for _ in range(PROBE_REPEATS):
        tile = zero_tile(_ROWS, PANELS)
        for k in range(_INPUTS):
            tile = fma_tile(tile, x, k * _ROWS, 1, load_tile(weights, k * PANELS * LANES, 0, LANES, 1, PANELS))
        store_tile(result, 0, PANELS * LANES, LANES, tile, PANELS)


@kernel
def measure_limit(job, step, me):
    """Do the items of a probe: read PROBE_FLOATS of memory each, or multiply and add."""
    if me == 0:
        cast(job, types.int64)[_FLOP] = 2 * _ROWS * PANELS * LANES * _INPUTS * PROBE_REPEATS
    cells, data = pointer_in(job, _CELLS, types.int64), pointer_in(job, _DATA, types.float32)
    item = claim(cells, step)
    while item < int64_in(job, _ITEMS):
        if int64_in(job, _PROBE) == PROBE_READ:
            read_floats(at(data, item * PROBE_FLOATS), PROBE_FLOATS)
        else:
            multiply_add(at(data, me * PROBE_FLOATS))
        item_done(cells, step)
        item = claim(cells, step)
    wait_for_step(cells, step, int64_in(job, _ITEMS))
