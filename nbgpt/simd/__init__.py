"""SIMD registers, pointers and atomics as Numba values, so that kernels read as plain Python.

May import: abi.
Start with `lanes.py`, then `tiles.py`.

A vector has 16 lanes of 32 bits on every CPU: LLVM maps it to one AVX-512, two AVX2 or four NEON registers. Only what
LLVM cannot derive (integer dot products, half floats) depends on the features of the target, the CPU that Numba
compiles for, which need not be the CPU that it runs on.

Every operation has one order of evaluation. Only `fma` fuses a multiplication and an addition. So a result has the same
bits on every instruction set, except on targets without FMA, where `fma` rounds twice.
"""

from numba import njit

from .atomics import atomic_add, atomic_load, atomic_store, futex_wait, futex_wake, relax, yield_cpu
from .bfloats import dot_pairs, even_pairs, odd_pairs, pair_bfloats
from .lanes import (
    absolute,
    bfloat_at,
    first,
    floor,
    fma,
    half_at,
    keep_first,
    largest,
    load,
    maximum,
    minimum,
    put,
    round_bfloat,
    round_even,
    scale_by_power,
    splat,
    square_root,
    store,
    store_apart,
    store_bfloats,
    store_quads,
    total,
    zero_below,
)
from .pointers import at, cast, data, pointer_in, stack_bytes
from .tiles import (
    add_dots,
    add_tile,
    ahead_tile,
    dot_bytes,
    dot_nibbles,
    even_bfloats,
    fma_tile,
    high_nibbles,
    load_dots,
    load_tile,
    low_nibbles,
    odd_bfloats,
    row_tile,
    scale_tile,
    splat_tile,
    store_bytes,
    store_tile,
    stream_tile,
    zero_dots,
    zero_tile,
)

kernel = njit(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Compiles a function, with the only set of flags: no fast-math, which would let LLVM change the bits of a result."""

__all__ = [
    "absolute",
    "add_dots",
    "add_tile",
    "ahead_tile",
    "at",
    "atomic_add",
    "atomic_load",
    "atomic_store",
    "bfloat_at",
    "cast",
    "data",
    "dot_bytes",
    "dot_nibbles",
    "dot_pairs",
    "even_bfloats",
    "even_pairs",
    "first",
    "floor",
    "fma",
    "fma_tile",
    "futex_wait",
    "futex_wake",
    "half_at",
    "high_nibbles",
    "keep_first",
    "kernel",
    "largest",
    "load",
    "load_dots",
    "load_tile",
    "low_nibbles",
    "maximum",
    "minimum",
    "odd_bfloats",
    "odd_pairs",
    "pair_bfloats",
    "pointer_in",
    "put",
    "relax",
    "round_bfloat",
    "round_even",
    "row_tile",
    "scale_by_power",
    "scale_tile",
    "splat",
    "splat_tile",
    "square_root",
    "stack_bytes",
    "store",
    "store_apart",
    "store_bfloats",
    "store_bytes",
    "store_quads",
    "store_tile",
    "stream_tile",
    "total",
    "yield_cpu",
    "zero_below",
    "zero_dots",
    "zero_tile",
]
