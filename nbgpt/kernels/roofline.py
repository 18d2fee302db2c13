"""Measures the roofline of the machine: memory bandwidth, and float32 multiply-adds (Williams et al. 2009)."""

from __future__ import annotations

from numba import types

from ..abi.job import PROBE_FLOATS, PROBE_READ, PROBE_REPEATS, SLOT
from ..abi.layout import LANES
from ..simd import at, cast, fma_tile, kernel, load, row_tile, splat, store, store_tile, zero_tile
from .fields import probe, probe_data, probe_items
from .matmul import TILES
from .phases import make_phase

_PROBE_FLOP = SLOT["probe_flop"]
_ROWS, _PANELS = TILES["float32"].whole
_INPUTS = 128


@kernel
def read_floats(x, n):  # x [n], n a multiple of 128
    """x[:16] = sums of x: reads every byte. Eight independent sums, so that no addition waits for the previous one."""
    a = b = c = d = e = f = g = h = splat(types.float32(0))
    for i in range(0, n, 8 * LANES):
        a, b = a + load(x, i), b + load(x, i + LANES)
        c, d = c + load(x, i + 2 * LANES), d + load(x, i + 3 * LANES)
        e, f = e + load(x, i + 4 * LANES), f + load(x, i + 5 * LANES)
        g, h = g + load(x, i + 6 * LANES), h + load(x, i + 7 * LANES)
    store(x, 0, ((a + b) + (c + d)) + ((e + f) + (g + h)))


@kernel
def multiply_add(x):  # x: a row tile, then two panels, then the result; all fit in the first-level cache
    """The largest tile of the float32 matmul, PROBE_REPEATS times."""
    weights = at(x, _ROWS * _INPUTS)
    result = at(weights, _PANELS * LANES * _INPUTS)
    for _ in range(PROBE_REPEATS):
        tile = zero_tile(_ROWS, _PANELS)
        for k in range(_INPUTS):
            tile = fma_tile(tile, x, k * _ROWS, 1, row_tile(weights, k * _PANELS * LANES, LANES, _PANELS))
        store_tile(result, 0, _PANELS * LANES, LANES, tile, _PANELS)


@kernel
def _report_flop(job, layer, thread):  # every thread writes the same number
    cast(job, types.int64)[_PROBE_FLOP] = 2 * _ROWS * _PANELS * LANES * _INPUTS * PROBE_REPEATS


@kernel
def _measure(job, layer, item, thread):
    if probe(job) == PROBE_READ:
        read_floats(at(probe_data(job), item * PROBE_FLOATS), PROBE_FLOATS)
    else:
        multiply_add(at(probe_data(job), thread * PROBE_FLOATS))


measure = make_phase(probe_items, _measure, prepare=_report_flop)
"""The only phase of a probe: its items read PROBE_FLOATS of memory each, or multiply and add."""
