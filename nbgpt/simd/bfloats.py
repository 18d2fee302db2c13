"""Dot products of bfloat16 pairs: x86's vdpbf16ps does two multiply-adds in each lane, one after the other.

The inputs of one chain of additions must share a lane, but a lane of the weights has an even and an odd input, and
these belong to two chains. So the weights of four inputs change places once for all rows of a tile; activations are
packed in pairs. In a pair the first input is in the upper half of the lane, since vdpbf16ps adds that one first.

The instruction rounds after each multiply-add, as `fma` does; that denormal numbers count as 0 does not matter (see
kernels/matmul.py). So its bits are those of two `fma`.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2 (VDPBF16PS); tried on a Zen 4, see
bench/NOTES.md.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import codegen
from .codegen import F32X16, I16X32, I32, I32X16, constant, f32x16, i32x16
from .tiles import each_register, offset, undefined


class _Bfloat16(ir.Type):
    """LLVM's bfloat, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bfloat16)

    def __hash__(self) -> int:
        return hash(_Bfloat16)


_BF16X32 = ir.VectorType(_Bfloat16(), 32)


def _pairs_of_weights(pair: Any, doc: str) -> Any:
    @intrinsic
    def pairs(typing: Any, tile: Any, next_tile: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            result = undefined(context, tile)
            for place in range(tile.count):
                both = (builder.extract_value(side, place) for side in args)
                result = builder.insert_value(result, pair(builder, *both), place)
            return result

        return tile(tile, next_tile), generate

    pairs.__doc__ = doc
    return pairs


def _lower_halves(builder: Any, one: Any, other: Any) -> Any:
    """The lower half of a lane of `one` and that of `other`; a shuffle would hold up the multipliers of a Zen 4."""
    return builder.or_(builder.shl(one, constant(I32X16, 16)), builder.and_(other, constant(I32X16, 0xFFFF)))


def _upper_halves(builder: Any, one: Any, other: Any) -> Any:
    return builder.or_(builder.and_(one, constant(I32X16, 0xFFFF0000)), builder.lshr(other, constant(I32X16, 16)))


even_pairs = _pairs_of_weights(_lower_halves, "Of a row of weights (0, 1) and the next one (2, 3): the pairs (0, 2).")
odd_pairs = _pairs_of_weights(_upper_halves, "The pairs (1, 3).")


@intrinsic
def pair_bfloats(typing: Any, first: Any, second: Any) -> Any:
    """Of 32 float32 that are bfloat16: the pairs (0, 2), (1, 3), (4, 6), (5, 7), ... as 16 lanes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        firsts = [4 * (lane // 2) + lane % 2 for lane in range(16)]
        halves = [2 * place + 1 for first in firsts for place in (first + 2, first)]  # of a lane the lower, the upper
        mask = ir.Constant(ir.VectorType(I32, 32), halves)
        both = (builder.bitcast(side, I16X32) for side in args)
        return builder.bitcast(builder.shuffle_vector(*both, mask), I32X16)

    return i32x16(f32x16, f32x16), generate


@intrinsic
def dot_pairs(typing: Any, tile: Any, x: Any, start: Any, stride: Any, weights: Any) -> Any:
    """tile[row, column] += the pair x[start + row * stride] by the pairs weights[column], upper halves first."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        result, x_value, start, stride, registers = args
        for row, column, place in each_register(tile, weights):
            if column == 0:
                pair = codegen.element_at(builder, x_value, offset(builder, start, stride, row), I32, 4)
                pairs = builder.bitcast(codegen.splat(builder, pair), _BF16X32)
            weight = builder.bitcast(builder.extract_value(registers, column), _BF16X32)
            total = builder.extract_value(result, place)
            value = codegen.call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", F32X16, total, pairs, weight)
            result = builder.insert_value(result, value, place)
        return result

    return tile(tile, x, types.intp, types.intp, weights), generate
