"""Arithmetic on registers of 16 lanes."""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, lower_builtin, type_callable

from ..abi.layout import LANES
from . import codegen
from .codegen import F32, F32X16, I8X16, I16X16, I32, I32X16, I64, MEMORY, constant, f32x16


@intrinsic
def load(typing: Any, pointer: Any, index: Any) -> Any:
    """16 float32 from pointer + index, from float16 if the pointer is uint16; 16 int32 (uint32); 64 bytes (uint8)."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return codegen.register_at(builder, pointer.dtype, *args)

    return MEMORY[pointer.dtype][0](pointer, types.intp), generate


@intrinsic
def store(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write 16 float32 to pointer + index."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        where = builder.bitcast(builder.gep(args[0], [args[1]]), F32X16.as_pointer())
        builder.store(args[2], where).align = 4
        return context.get_dummy_value()

    return types.void(pointer, types.intp, f32x16), generate


@intrinsic
def splat(typing: Any, scalar: Any) -> Any:
    """One float32 in every lane."""
    return f32x16(types.float32), lambda context, builder, sig, args: codegen.splat(builder, args[0])


@intrinsic
def first(typing: Any, x: Any) -> Any:
    """The first lane."""
    return types.float32(f32x16), lambda context, builder, sig, args: builder.extract_element(args[0], I32(0))


@intrinsic
def half_at(typing: Any, pointer: Any, index: Any) -> Any:
    """The float16 at a uint16 pointer + index, as float32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer_value, index = args
        bits = codegen.element_at(builder, pointer_value, index, codegen.I16, 2)
        return builder.extract_element(codegen.widen_halves(builder, codegen.splat(builder, bits)), I32(0))

    return types.float32(pointer, types.intp), generate


@intrinsic
def bfloat_at(typing: Any, pointer: Any, index: Any) -> Any:
    """The bfloat16 at a uint16 pointer + index, as float32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer_value, index = args
        bits = codegen.element_at(builder, pointer_value, index, codegen.I16, 2)
        return builder.bitcast(builder.shl(builder.zext(bits, I32), I32(16)), F32)

    return types.float32(pointer, types.intp), generate


@intrinsic
def put(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write one float32 to pointer + index; to a uint16 pointer as the nearest float16."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = codegen.narrow(builder, args[2]) if pointer.dtype == types.uint16 else args[2]
        builder.store(value, builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.float32), generate


@intrinsic
def fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once."""
    return f32x16(f32x16, f32x16, f32x16), lambda context, builder, sig, args: codegen.fma(builder, *args)


def _define_operator(python_operator: Any, method: str) -> None:
    @type_callable(python_operator)
    def typed(context: Any) -> Any:
        return lambda x, y: f32x16 if x == f32x16 and y == f32x16 else None

    @lower_builtin(python_operator, f32x16, f32x16)
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, method)(*args)


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")
_define_operator(operator.truediv, "fdiv")


def _pick(builder: Any, comparison: str, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(comparison, x, y), x, y)


@intrinsic
def maximum(typing: Any, x: Any, y: Any) -> Any:
    """The larger of two values, lane by lane."""
    return f32x16(f32x16, f32x16), lambda context, builder, sig, args: _pick(builder, ">", *args)


@intrinsic
def minimum(typing: Any, x: Any, y: Any) -> Any:
    """The smaller of two values, lane by lane."""
    return f32x16(f32x16, f32x16), lambda context, builder, sig, args: _pick(builder, "<", *args)


@intrinsic
def absolute(typing: Any, x: Any) -> Any:
    """|x|, lane by lane."""
    return f32x16(f32x16), lambda context, builder, sig, args: codegen.call(
        builder, "llvm.fabs.v16f32", F32X16, args[0]
    )


@intrinsic
def zero_below(typing: Any, x: Any, least: Any) -> Any:
    """x, and 0 where |x| < least; NaN stays."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        is_below = builder.fcmp_ordered("<", codegen.call(builder, "llvm.fabs.v16f32", F32X16, args[0]), args[1])
        return builder.select(is_below, constant(F32X16, 0.0), args[0])

    return f32x16(f32x16, f32x16), generate


@intrinsic
def square_root(typing: Any, x: Any) -> Any:
    """The square root of one float32, correctly rounded: one instruction, where math.sqrt would call libm."""
    return types.float32(types.float32), lambda context, builder, sig, args: codegen.call(
        builder, "llvm.sqrt.f32", F32, args[0]
    )


@intrinsic
def keep_first(typing: Any, x: Any, count: Any, rest: Any) -> Any:
    """The first count lanes of x, then those of rest; count may be below 0 or above 16."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = ir.Constant(I32X16, list(range(LANES)))
        limit = codegen.splat(builder, builder.trunc(args[1], I32))
        return builder.select(builder.icmp_signed("<", lanes, limit), args[0], args[2])

    return f32x16(f32x16, types.int64, f32x16), generate


def _over_lanes(builder: Any, value: Any, combine: Any) -> Any:
    """Combine the lanes as a tree in one fixed order; LLVM's own reductions leave the order to the target."""
    for half in (8, 4, 2, 1):
        lower = codegen.shuffle(builder, value, list(range(half)))
        value = combine(lower, codegen.shuffle(builder, value, list(range(half, 2 * half))))
    return builder.extract_element(value, I32(0))


@intrinsic
def total(typing: Any, x: Any) -> Any:
    """Sum of the lanes."""
    return types.float32(f32x16), lambda context, builder, sig, args: _over_lanes(builder, args[0], builder.fadd)


@intrinsic
def largest(typing: Any, x: Any) -> Any:
    """The largest lane."""
    return types.float32(f32x16), lambda context, builder, sig, args: _over_lanes(
        builder, args[0], lambda low, high: _pick(builder, ">", low, high)
    )


def _nearest(builder: Any, value: Any) -> Any:
    magic = constant(F32X16, 1.5 * 2.0**23)  # leaves no bits of the mantissa for a fraction
    return builder.fsub(builder.fadd(value, magic), magic)


@intrinsic
def round_even(typing: Any, x: Any) -> Any:
    """The nearest integer, ties to even; |x| must be below 2^22."""
    return f32x16(f32x16), lambda context, builder, sig, args: _nearest(builder, args[0])


@intrinsic
def floor(typing: Any, x: Any) -> Any:
    """The largest integer <= x; |x| must be below 2^22."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        nearest = _nearest(builder, args[0])  # SSE2 has no instruction for floor: LLVM would call libm
        above = builder.fcmp_ordered(">", nearest, args[0])
        return builder.fsub(nearest, builder.uitofp(above, F32X16))

    return f32x16(f32x16), generate


@intrinsic
def scale_by_power(typing: Any, x: Any, exponent: Any) -> Any:
    """x * 2^exponent for an integer exponent; the result must be a normal float32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        shift = builder.shl(builder.fptosi(args[1], I32X16), constant(I32X16, 23))
        return builder.bitcast(builder.add(builder.bitcast(args[0], I32X16), shift), F32X16)

    return f32x16(f32x16, f32x16), generate


@intrinsic
def round_bfloat(typing: Any, x: Any) -> Any:
    """The nearest bfloat16, ties to even, as float32; NaN stays one in the upper half."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], I32X16)
        is_odd = builder.and_(builder.lshr(bits, constant(I32X16, 16)), constant(I32X16, 1))
        half = builder.add(constant(I32X16, 0x7FFF), is_odd)  # carries into the upper half if the lower one is more
        rounded = codegen.bfloat_of_upper(builder, builder.add(bits, half))
        is_nan = builder.fcmp_unordered("uno", args[0], args[0])
        quiet = builder.bitcast(builder.or_(bits, constant(I32X16, 0x400000)), F32X16)
        return builder.select(is_nan, quiet, rounded)  # the carry, or the cut, could turn NaN into a number

    return f32x16(f32x16), generate


@intrinsic
def store_bfloats(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write 16 float32 that are bfloat16 to a uint16 pointer + index, each in 16 bits."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer_value, index, value = args
        upper = builder.lshr(builder.bitcast(value, I32X16), constant(I32X16, 16))
        where = builder.bitcast(builder.gep(pointer_value, [index]), I16X16.as_pointer())
        builder.store(builder.trunc(upper, I16X16), where).align = 2
        return context.get_dummy_value()

    return types.void(pointer, types.intp, f32x16), generate


@intrinsic
def store_apart(typing: Any, pointer: Any, start: Any, stride: Any, value: Any) -> Any:
    """Write 16 float32 or int32, one each to pointer + start, pointer + start + stride, ..."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer_value, start, stride, value = args
        for lane in range(LANES):
            index = builder.add(start, builder.mul(stride, I64(lane)))
            builder.store(builder.extract_element(value, I32(lane)), builder.gep(pointer_value, [index]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, value), generate


@intrinsic
def store_quads(typing: Any, pointer: Any, start: Any, stride: Any, value: Any) -> Any:
    """Write 16 integers in -128..127, a quad each to pointer + start, pointer + start + stride, ...

    In the format of dots.py: signed bytes, or int16 if the pointer is int16, each quad in the order 0, 2, 1, 3.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer_value, start, stride, numbers = args
        whole = builder.fptosi(numbers, I32X16)
        if pointer.dtype == types.int16:
            order = [4 * quad + i for quad in range(LANES // 4) for i in (0, 2, 1, 3)]
            narrow, quad_type = codegen.shuffle(builder, builder.trunc(whole, I16X16), order), I64
        else:
            narrow, quad_type = builder.trunc(whole, I8X16), I32
        quads = builder.bitcast(narrow, ir.VectorType(quad_type, LANES // 4))
        for quad in range(LANES // 4):
            index = builder.add(start, builder.mul(stride, I64(quad)))
            where = builder.bitcast(builder.gep(pointer_value, [index]), quad_type.as_pointer())
            builder.store(builder.extract_element(quads, I32(quad)), where).align = 1
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, f32x16), generate
