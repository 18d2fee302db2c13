"""AMX as a program: tile registers in memory, and functions in the place of nbgpt/simd/amx.py's instructions.

It is slow and plain, one number after the other, and counts what a CPU would refuse. There is one set of registers, so
only one thread may use it at a time.
"""

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from nbgpt.simd.amx import TILE_ROW_BYTES, TILE_ROWS, TileUnit
from nbgpt.simd.codegen import I64

N_TILES = 8
REGISTERS = np.zeros((N_TILES, TILE_ROWS, TILE_ROW_BYTES), np.uint8)
SHAPES = np.zeros((N_TILES, 2), np.int64)  # (rows, bytes of a row); zeros while the registers are not configured
CONFIGURED, DOTS, REFUSED, CONFIGURATIONS = range(4)
COUNTS = np.zeros(4, np.int64)


def pointer_to(array):
    """A function () for kernels: the address of an array that lives as long as this process."""
    address, result = array.ctypes.data, types.CPointer(from_dtype(array.dtype))

    @intrinsic
    def pointer(typing):
        def generate(context, builder, sig, args):
            return builder.inttoptr(I64(address), context.get_value_type(result))

        return result(), generate

    return pointer


_bytes, _sums, _shapes, _counts = map(pointer_to, (REGISTERS, REGISTERS.view(np.int32), SHAPES, COUNTS))
_ROW, _TILE = TILE_ROW_BYTES, TILE_ROWS * TILE_ROW_BYTES


@njit
def _expect(condition):
    if _counts()[CONFIGURED] == 0 or not condition:
        _counts()[REFUSED] += 1


@njit
def _rows(tile):
    return _shapes()[2 * tile]


@njit
def _row_bytes(tile):
    return _shapes()[2 * tile + 1]


def make_configure(shapes):
    @njit
    def configure():
        for tile in range(N_TILES):
            _shapes()[2 * tile], _shapes()[2 * tile + 1] = shapes[tile]
            for i in range(_TILE):
                _bytes()[tile * _TILE + i] = 0
        _counts()[CONFIGURED] = 1
        _counts()[CONFIGURATIONS] += 1

    return configure


@njit
def release():
    for i in range(2 * N_TILES):
        _shapes()[i] = 0
    _counts()[CONFIGURED] = 0


@njit
def zero(tile):
    _expect(_rows(tile) > 0)
    for i in range(_TILE):
        _bytes()[tile * _TILE + i] = 0


@njit
def load(tile, pointer, index, stride):
    zero(tile)  # what lies beyond the shape is zero after a load
    for row in range(_rows(tile)):
        for i in range(_row_bytes(tile)):
            _bytes()[tile * _TILE + row * _ROW + i] = pointer[index + row * stride + i]


@njit
def store(tile, pointer, index, stride):
    _expect(_rows(tile) > 0)
    for row in range(_rows(tile)):
        for i in range(_row_bytes(tile)):
            pointer[index + row * stride + i] = _bytes()[tile * _TILE + row * _ROW + i]


@njit
def dot(sums, x, w):
    _expect(sums != x and sums != w and x != w)
    _expect(_rows(sums) == _rows(x) and _row_bytes(sums) == _row_bytes(w) and _row_bytes(x) == 4 * _rows(w))
    _counts()[DOTS] += 1
    for row in range(_rows(sums)):
        for column in range(_row_bytes(sums) // 4):
            total = types.int64(_sums()[(sums * _TILE + row * _ROW) // 4 + column])
            for k in range(_row_bytes(x)):
                signed = (types.int64(_bytes()[x * _TILE + row * _ROW + k]) ^ 128) - 128
                total += signed * types.int64(_bytes()[w * _TILE + k // 4 * _ROW + 4 * column + k % 4])
            _sums()[(sums * _TILE + row * _ROW) // 4 + column] = total


PROGRAM = TileUnit(make_configure, release, zero, load, store, dot)
