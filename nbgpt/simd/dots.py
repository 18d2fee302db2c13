"""Integer dot products: unsigned bytes of weights by signed activations, four inputs in each lane of 32 bits.

The sums are exact, so they are equal on every CPU. The features of the target choose the instructions:

    x86 with VNNI           vpdpbusd adds four products to 32 bits
    x86, weights 0 to 15    vpmaddubsw adds two products in 16 bits; the sum of a group of inputs fits 16 bits
    x86, weights 0 to 255   that would overflow, so bytes widen to 16 bits, and vpmaddwd adds products in 32 bits
    ARM with dotprod        sdot is as vpdpbusd, but weights are signed too: the 128 added to each is subtracted first
    others                  multiplications and additions in 32 bits
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba import types

from ..abi.layout import GROUP_INT4
from .codegen import (
    I8X64,
    I16X32,
    I32,
    I32X16,
    TARGET,
    Vector,
    call,
    constant,
    element_at,
    i16x32,
    i32x16,
    shuffle,
    splat,
)


@dataclass(frozen=True)
class Dots:
    """The dot product of a register of weights and four activations, for one range of weights."""

    activations: Any  # element of a row tile: uint8 (signed bytes), or int16, whose quads are in the order 0, 2, 1, 3
    total: Vector  # type of the sums
    operands: Callable[[Any, Any], Any]  # (builder, weights): as `add` takes them, once for all rows of a tile
    spread: Callable[[Any, Any, Any], Any]  # (builder, pointer, index): four activations, repeated in every lane
    add: Callable[[Any, Any, Any, Any], Any]  # (builder, total, operands, activations) -> total


def _in_parts(builder: Any, names: dict[int, str], result: Any, *operands: Any) -> Any:
    """Apply an instruction to the parts of our registers that fill one register of the CPU; names: by its bytes."""
    n = 64 // TARGET.register_bytes

    def part(value: Any, i: int) -> Any:
        size = value.type.count // n
        return shuffle(builder, value, list(range(i * size, (i + 1) * size)))

    narrow = ir.VectorType(result.element, result.count // n)
    name = names[TARGET.register_bytes]
    parts = [call(builder, name, narrow, *(part(value, i) for value in operands)) for i in range(n)]
    while len(parts) > 1:
        order = ir.Constant(ir.VectorType(I32, 2 * parts[0].type.count), list(range(2 * parts[0].type.count)))
        parts = [builder.shuffle_vector(low, high, order) for low, high in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _as_they_are(builder: Any, weights: Any) -> Any:
    return weights


def _spread_bytes(builder: Any, pointer: Any, index: Any) -> Any:
    return builder.bitcast(splat(builder, element_at(builder, pointer, index, I32, 1)), I8X64)


# --- x86 with VNNI ---------------------------------------------------------------------------------------------------


_VPDPBUSD = {64: "llvm.x86.avx512.vpdpbusd.512", 32: "llvm.x86.avx512.vpdpbusd.256"}


def _add_vnni(builder: Any, total: Any, weights: Any, four: Any) -> Any:
    argument = I8X64 if llvm.llvm_version_info[0] >= 22 else I32X16
    operands = (builder.bitcast(side, argument) for side in (weights, four))
    return _in_parts(builder, _VPDPBUSD, I32X16, total, *operands)


_VNNI = Dots(types.uint8, i32x16, _as_they_are, _spread_bytes, _add_vnni)

# --- x86, two products to 32 bits ------------------------------------------------------------------------------------

_PMADDWD = {64: "llvm.x86.avx512.pmaddw.d.512", 32: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.sse2.pmadd.wd"}


def _halves(builder: Any, weights: Any) -> Any:
    words = builder.bitcast(weights, I16X32)
    return builder.and_(words, constant(I16X32, 255)), builder.lshr(words, constant(I16X32, 8))


def _spread_pairs(builder: Any, pointer: Any, index: Any) -> Any:
    """The activations of the even bytes of weights, and those of the odd bytes."""
    places = index, builder.add(index, ir.Constant(index.type, 2))
    return [builder.bitcast(splat(builder, element_at(builder, pointer, place, I32, 2)), I16X32) for place in places]


def _add_pairs(builder: Any, total: Any, halves: Any, pairs: Any) -> Any:
    for half, pair in zip(halves, pairs, strict=True):
        total = builder.add(total, _in_parts(builder, _PMADDWD, I32X16, half, pair))
    return total


_PAIRS = Dots(types.int16, i32x16, _halves, _spread_pairs, _add_pairs)

# --- x86, weights of four bits: two products to 16 bits --------------------------------------------------------------

_PMADDUBSW = {
    64: "llvm.x86.avx512.pmaddubs.w.512",
    32: "llvm.x86.avx2.pmadd.ub.sw",
    16: "llvm.x86.ssse3.pmadd.ub.sw.128",
}
assert GROUP_INT4 // 2 * 15 * 128 < 1 << 15  # the largest sum of a group, whose inputs share two lanes of 16 bits


def _add_short(builder: Any, total: Any, weights: Any, four: Any) -> Any:
    return builder.add(total, _in_parts(builder, _PMADDUBSW, I16X32, weights, four))


_SHORT = Dots(types.uint8, i16x32, _as_they_are, _spread_bytes, _add_short)

# --- ARM with dotprod ------------------------------------------------------------------------------------------------


def _signed(builder: Any, weights: Any) -> Any:
    return builder.xor(weights, constant(I8X64, 128))


def _add_sdot(builder: Any, total: Any, weights: Any, four: Any) -> Any:
    return _in_parts(builder, {16: "llvm.aarch64.neon.sdot.v4i32.v16i8"}, I32X16, total, weights, four)


_SDOT_BYTES = Dots(types.uint8, i32x16, _signed, _spread_bytes, _add_sdot)
_SDOT_NIBBLES = Dots(types.uint8, i32x16, _as_they_are, _spread_bytes, _add_sdot)

# --- Others ----------------------------------------------------------------------------------------------------------


def _add_wide(builder: Any, total: Any, weights: Any, four: Any) -> Any:
    for j in range(4):
        lanes = list(range(j, 64, 4))
        weight = builder.zext(shuffle(builder, weights, lanes), I32X16)
        total = builder.add(total, builder.mul(weight, builder.sext(shuffle(builder, four, lanes), I32X16)))
    return total


_WIDE = Dots(types.uint8, i32x16, _as_they_are, _spread_bytes, _add_wide)


def _choose() -> tuple[Dots, Dots]:
    if TARGET.vnni:
        return _VNNI, _VNNI
    if TARGET.sse2:
        return _PAIRS, _SHORT if TARGET.ssse3 else _PAIRS
    return (_SDOT_BYTES, _SDOT_NIBBLES) if TARGET.dotprod else (_WIDE, _WIDE)


BYTES, NIBBLES = _choose()
"""The dot products for weights from 0 to 255, and from 0 to 15."""
ADDED = 0 if BYTES is _SDOT_BYTES else 128
"""The number that is added to each int8 weight that `BYTES` multiplies."""


def in_32_bits(builder: Any, total: Any) -> Any:
    """Sums of either type as <16 x i32>."""
    if total.type == I32X16:
        return total
    return _in_parts(builder, _PMADDWD, I32X16, total, constant(I16X32, 1))
