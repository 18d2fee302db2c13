"""Tiles: tuples of registers that stay in the register file, rows of activations by registers (columns) of outputs.

A tile [rows, columns] is a flat tuple, row after row; `weights` is one row of `columns` registers. Both counts are
compile-time constants. The scalar of a row is at `start + row * stride`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import codegen
from .codegen import F32, F32X16, I32, I64, MEMORY, f32x16, i32x16, u8x64
from .dots import BYTES, NIBBLES, Dots, in_32_bits


def offset(builder: Any, start: Any, stride: Any, count: int) -> Any:
    """start + count * stride."""
    return builder.add(start, builder.mul(stride, I64(count)))


def _broadcast(builder: Any, x: Any, start: Any, stride: Any, row: int) -> Any:
    """The float32 of a row, in every lane."""
    return codegen.splat(builder, codegen.element_at(builder, x, offset(builder, start, stride, row), F32, 4))


def undefined(context: Any, tile_type: Any) -> Any:
    """A tile whose registers are to be inserted."""
    return ir.Constant(context.get_value_type(tile_type), ir.Undefined)


def each_register(tile_type: Any, weights_type: Any) -> Iterator[tuple[int, int, int]]:
    """(row, column, index in the tuple) of each register of a tile that is as wide as the weights."""
    for place in range(tile_type.count):
        row, column = divmod(place, weights_type.count)
        yield row, column, place


@intrinsic(prefer_literal=True)
def zero_tile(typing: Any, rows: Any, columns: Any) -> Any:
    """A tile of float32 zeros."""
    return _zeros(f32x16, codegen.constant(F32X16, 0.0), rows, columns)


@intrinsic(prefer_literal=True)
def zero_dots(typing: Any, rows: Any, columns: Any) -> Any:
    """A tile of integer zeros, to which `dot_nibbles` adds the inputs of one group."""
    return _zeros(NIBBLES.total, codegen.constant(NIBBLES.total.llvm_type, 0), rows, columns)


def _zeros(register: Any, zero: Any, rows: Any, columns: Any) -> Any:
    tile_type = types.UniTuple(register, rows.literal_value * columns.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(tile_type), [zero] * tile_type.count)

    return tile_type(rows, columns), generate


@intrinsic(prefer_literal=True)
def splat_tile(typing: Any, values: Any, start: Any, stride: Any, rows: Any, columns: Any) -> Any:
    """A tile of int32: values[start + row * stride] in every lane of a row."""
    tile_type = types.UniTuple(i32x16, rows.literal_value * columns.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values, start, stride = args[:3]
        tile = undefined(context, tile_type)
        for place in range(tile_type.count):
            index = offset(builder, start, stride, place // columns.literal_value)
            value = codegen.splat(builder, codegen.element_at(builder, values, index, I32, 4))
            tile = builder.insert_value(tile, value, place)
        return tile

    return tile_type(values, types.intp, types.intp, rows, columns), generate


def _row_of_weights(ahead: Any, cache: int, doc: str) -> Any:
    """ahead(builder, type of an element, step, columns): prefetch distance in elements; None: no prefetch."""

    @intrinsic(prefer_literal=True)
    def row(typing: Any, pointer: Any, start: Any, step: Any, columns: Any) -> Any:
        tile_type = types.UniTuple(MEMORY[pointer.dtype][0], columns.literal_value)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer_value, start, step = args[:3]
            tile = undefined(context, tile_type)
            for column in range(tile_type.count):
                index = offset(builder, start, step, column)
                if ahead:
                    distance = ahead(builder, pointer.dtype, step, tile_type.count)
                    codegen.prefetch(builder, pointer_value, builder.add(index, distance), cache)
                register = codegen.register_at(builder, pointer.dtype, pointer_value, index)
                tile = builder.insert_value(tile, register, column)
            return tile

        return tile_type(pointer, types.intp, types.intp, columns), generate

    row.__doc__ = doc
    return row


_STREAM_AHEAD = 4096  # bytes


def _bytes_ahead(builder: Any, dtype: Any, step: Any, columns: int) -> Any:
    return I64(8 * _STREAM_AHEAD // dtype.bitwidth)


def _tile_ahead(builder: Any, dtype: Any, step: Any, columns: int) -> Any:
    return builder.mul(step, I64(columns))


# Hardware prefetchers stop at the end of each panel, some kilobytes long. The distances were measured, see
# bench/NOTES.md: one row reads panels at memory bandwidth; several rows take long enough to ask for the next panels,
# into L2, as L1 has no room for them.
row_tile = _row_of_weights(None, 0, "The registers at pointer + start + column * step: a row of weights.")
stream_tile = _row_of_weights(_bytes_ahead, 1, "The same, with a prefetch 4 KB ahead: for one row.")
ahead_tile = _row_of_weights(_tile_ahead, 2, "The same, with a prefetch of the next row of weights: for several rows.")


def _registers_in_memory(register: Any, doc: str) -> Any:
    @intrinsic(prefer_literal=True)
    def load(typing: Any, pointer: Any, start: Any, stride: Any, step: Any, rows: Any, columns: Any) -> Any:
        tile_type = types.UniTuple(register, rows.literal_value * columns.literal_value)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer_value, start, stride, step = args[:4]
            tile = undefined(context, tile_type)
            for place in range(tile_type.count):
                row, column = divmod(place, columns.literal_value)
                index = offset(builder, offset(builder, start, stride, row), step, column)
                value = codegen.element_at(builder, pointer_value, index, register.llvm_type, 4)
                tile = builder.insert_value(tile, value, place)
            return tile

        return tile_type(pointer, types.intp, types.intp, types.intp, rows, columns), generate

    load.__doc__ = doc
    return load


load_tile = _registers_in_memory(f32x16, "The float32 tile that `store_tile` has written.")
load_dots = _registers_in_memory(i32x16, "A tile of int32 from pointer + start + row * stride + column * step.")


@intrinsic(prefer_literal=True)
def store_tile(typing: Any, pointer: Any, start: Any, stride: Any, step: Any, tile: Any, columns: Any) -> Any:
    """Write a float32 tile to pointer + start + row * stride + column * step."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer_value, start, stride, step, registers = args[:5]
        for place in range(tile.count):
            row, column = divmod(place, columns.literal_value)
            index = offset(builder, offset(builder, start, stride, row), step, column)
            where = builder.bitcast(builder.gep(pointer_value, [index]), F32X16.as_pointer())
            builder.store(builder.extract_value(registers, place), where).align = 4
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, types.intp, tile, columns), generate


@intrinsic
def fma_tile(typing: Any, tile: Any, x: Any, start: Any, stride: Any, weights: Any) -> Any:
    """tile[row, column] += x[start + row * stride] * weights[column]: one step along the inputs."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        result, x_value, start, stride, registers = args
        for row, column, place in each_register(tile, weights):
            if column == 0:
                broadcast = _broadcast(builder, x_value, start, stride, row)
            weight = builder.extract_value(registers, column)
            value = codegen.fma(builder, broadcast, weight, builder.extract_value(result, place))
            result = builder.insert_value(result, value, place)
        return result

    return tile(tile, x, types.intp, types.intp, weights), generate


@intrinsic
def add_tile(typing: Any, tile: Any, other: Any) -> Any:
    """tile + other, float32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        result, other_value = args
        for place in range(tile.count):
            pair = (builder.extract_value(side, place) for side in (result, other_value))
            result = builder.insert_value(result, builder.fadd(*pair), place)
        return result

    return tile(tile, other), generate


def _map_registers(result_register: Any, take: Any, doc: str) -> Any:
    """take(builder, register) of each register of a tile: a tile of registers of the type `result_register`."""

    @intrinsic
    def of_tile(typing: Any, tile: Any) -> Any:
        result_type = types.UniTuple(result_register, tile.count)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            result = undefined(context, result_type)
            for place in range(tile.count):
                result = builder.insert_value(result, take(builder, builder.extract_value(args[0], place)), place)
            return result

        return result_type(tile), generate

    of_tile.__doc__ = doc
    return of_tile


even_bfloats = _map_registers(f32x16, codegen.bfloat_of_lower, "The first bfloat16 of each pair, as float32.")
odd_bfloats = _map_registers(f32x16, codegen.bfloat_of_upper, "The second bfloat16 of each pair, as float32.")


def _dot_tile(dots: Dots, doc: str) -> Any:
    @intrinsic
    def dot_tile(typing: Any, tile: Any, x: Any, start: Any, stride: Any, weights: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            result, x_value, start, stride, registers = args
            operands = [dots.operands(builder, builder.extract_value(registers, i)) for i in range(weights.count)]
            for row, column, place in each_register(tile, weights):
                if column == 0:
                    four = dots.spread(builder, x_value, offset(builder, start, stride, row))
                value = dots.add(builder, builder.extract_value(result, place), operands[column], four)
                result = builder.insert_value(result, value, place)
            return result

        return tile(tile, x, types.intp, types.intp, weights), generate

    dot_tile.__doc__ = doc
    return dot_tile


dot_bytes = _dot_tile(BYTES, "tile += four inputs at once: the quad x[start + row * stride ...] by bytes of weights.")
dot_nibbles = _dot_tile(NIBBLES, "The same for weights from 0 to 15.")


@intrinsic
def scale_tile(typing: Any, tile: Any, dots: Any, x_scale: Any, start: Any, stride: Any, w_scale: Any) -> Any:
    """tile[row, column] += dots[row, column] * (x_scale[start + row * stride] * w_scale[column])."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        result, sums, x_value, start, stride, registers = args
        for row, column, place in each_register(tile, w_scale):
            if column == 0:
                broadcast = _broadcast(builder, x_value, start, stride, row)
            scale = builder.fmul(broadcast, builder.extract_value(registers, column))
            dot = builder.sitofp(in_32_bits(builder, builder.extract_value(sums, place)), F32X16)
            value = codegen.fma(builder, dot, scale, builder.extract_value(result, place))
            result = builder.insert_value(result, value, place)
        return result

    return tile(tile, dots, x_scale, types.intp, types.intp, w_scale), generate


@intrinsic
def add_dots(typing: Any, tile: Any, other: Any) -> Any:
    """The sum of two tiles of int32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        result, registers = args
        for place in range(tile.count):
            value = builder.add(builder.extract_value(result, place), builder.extract_value(registers, place))
            result = builder.insert_value(result, value, place)
        return result

    return tile(tile, other), generate


def _high(builder: Any, register: Any) -> Any:
    words = builder.lshr(builder.bitcast(register, codegen.I16X32), codegen.constant(codegen.I16X32, 4))
    return _low(builder, builder.bitcast(words, codegen.I8X64))  # x86 shifts words, not bytes


def _low(builder: Any, register: Any) -> Any:
    return builder.and_(register, codegen.constant(codegen.I8X64, 15))


low_nibbles = _map_registers(u8x64, _low, "The lower four bits of each byte.")
high_nibbles = _map_registers(u8x64, _high, "The upper four bits of each byte.")


@intrinsic
def store_bytes(typing: Any, pointer: Any, start: Any, tile: Any) -> Any:
    """Write a tile of bytes, one register after the other, from pointer + start on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer_value, start, registers = args
        for place in range(tile.count):
            where = builder.gep(pointer_value, [offset(builder, start, I64(64), place)])
            where = builder.bitcast(where, codegen.I8X64.as_pointer())
            builder.store(builder.extract_value(registers, place), where).align = 1
        return context.get_dummy_value()

    return types.void(pointer, types.intp, tile), generate
