"""AMX: eight tile registers of 16 rows by 64 bytes, and the instructions that multiply two of them.

Registers go by number, a constant from 0 to 7; LLVM does not assign them. A thread gives them their shapes before it
uses them, and releases them afterwards: then the system need not save 8 KB for it at each switch of threads. In between
they are part of the thread's state as all registers are: a signal, another thread or a fork changes nothing in them.

Pointers are to bytes, and so are indices and strides.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and volume 2 (TDPBSSD,
TDPBF16PS).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .codegen import I8, call

TILE_ROWS, TILE_ROW_BYTES = 16, 64
"""The largest shape of a register."""
_NOTHING = ir.VoidType()

Shapes = tuple[tuple[int, int], ...]
"""(rows, bytes of a row) of each register, by number."""


@dataclass(frozen=True)
class TileUnit:
    """What multiplies tiles: the CPU's instructions, or what stands in for them where a CPU has none (in tests)."""

    configure: Callable[[Shapes], Any]  # -> a function () that gives the registers these shapes, and zeros
    release: Any  # ()
    zero: Any  # (tile)
    load: Any  # (tile, pointer, index, stride): a row of the tile from every stride bytes
    store: Any  # (tile, pointer, index, stride)
    dot: Any  # (sums, x, w): int32 sums[i, j] += sum over k, q of x[i, 4 k + q] * w[k, 4 j + q], x signed, w unsigned
    dot_bfloats: Any  # (sums, x, w): float32 sums[i, j] += (sum over k of x[i, 2 k] * w[k, 2 j]) + (sum over k of
    # x[i, 2 k + 1] * w[k, 2 j + 1]), each sum in the order of k from 0 on, x and w bfloat16; denormals count as 0


def _configuration(shapes: Shapes) -> bytes:
    """The operand of ldtilecfg: palette 1, then bytes of a row and rows of each register."""
    row_bytes = b"".join(n_bytes.to_bytes(2, "little") for _, n_bytes in shapes)
    rows = bytes(n_rows for n_rows, _ in shapes)
    return b"\1".ljust(16, b"\0") + row_bytes.ljust(32, b"\0") + rows.ljust(16, b"\0")


def _configure(shapes: Shapes) -> Any:
    content = ir.Constant(ir.ArrayType(I8, 64), bytearray(_configuration(shapes)))

    @intrinsic
    def configure(typing: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            stored = cgutils.global_constant(builder, "tile_shapes", content)
            call(builder, "llvm.x86.ldtilecfg", _NOTHING, builder.bitcast(stored, I8.as_pointer()))
            return context.get_dummy_value()

        return types.void(), generate

    return configure


@intrinsic
def _release(typing: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        call(builder, "llvm.x86.tilerelease", _NOTHING)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic(prefer_literal=True)
def _zero(typing: Any, tile: Any) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        call(builder, "llvm.x86.tilezero", _NOTHING, I8(tile.literal_value))
        return context.get_dummy_value()

    return types.void(tile), generate


def _mover(name: str) -> Any:
    @intrinsic(prefer_literal=True)
    def move(typing: Any, tile: Any, pointer: Any, index: Any, stride: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            _, pointer_value, index, stride = args
            call(builder, name, _NOTHING, I8(tile.literal_value), builder.gep(pointer_value, [index]), stride)
            return context.get_dummy_value()

        return types.void(tile, types.CPointer(types.uint8), types.intp, types.intp), generate

    return move


def _multiplier(name: str) -> Any:
    @intrinsic(prefer_literal=True)
    def multiply(typing: Any, sums: Any, x: Any, w: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            call(builder, name, _NOTHING, *(I8(tile.literal_value) for tile in (sums, x, w)))
            return context.get_dummy_value()

        return types.void(sums, x, w), generate

    return multiply


AMX = TileUnit(
    _configure,
    _release,
    _zero,
    load=_mover("llvm.x86.tileloadd64"),
    store=_mover("llvm.x86.tilestored64"),
    dot=_multiplier("llvm.x86.tdpbsud"),
    dot_bfloats=_multiplier("llvm.x86.tdpbf16ps"),
)
"""The CPU's instructions."""
