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


_bytes, _shapes, _counts = map(pointer_to, (REGISTERS, SHAPES, COUNTS))
_sums, _float_sums, _halves = (pointer_to(REGISTERS.view(dtype)) for dtype in (np.int32, np.float32, np.uint16))
LEAST_NORMAL = 2.0**-126
with np.errstate(invalid="ignore"):  # signalling NaN
    BFLOATS = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)  # by their bits
BFLOATS[np.abs(BFLOATS) < LEAST_NORMAL] = 0
_bfloats = pointer_to(BFLOATS)
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
def _expect_product(sums, x, w):
    _expect(sums != x and sums != w and x != w)
    _expect(_rows(sums) == _rows(x) and _row_bytes(sums) == _row_bytes(w) and _row_bytes(x) == 4 * _rows(w))
    _counts()[DOTS] += 1


@njit
def dot(sums, x, w):
    _expect_product(sums, x, w)
    for row in range(_rows(sums)):
        for column in range(_row_bytes(sums) // 4):
            total = types.int64(_sums()[(sums * _TILE + row * _ROW) // 4 + column])
            for k in range(_row_bytes(x)):
                signed = (types.int64(_bytes()[x * _TILE + row * _ROW + k]) ^ 128) - 128
                total += signed * types.int64(_bytes()[w * _TILE + k // 4 * _ROW + 4 * column + k % 4])
            _sums()[(sums * _TILE + row * _ROW) // 4 + column] = total


# --- bfloat16: "FP32 FMA with DAZ=FTZ=1, RNE rounding", in the manual's order of operations ---------------------------


@njit
def _number(tile, row, place):
    """A bfloat16 of a register, as float64; 0 if it is denormal."""
    return _bfloats()[_halves()[(tile * _TILE + row * _ROW) // 2 + place]]


@njit
def _rounded(value):
    """float64 -> float32, 0 if that is denormal. A sum of two numbers of 24 bits may be rounded to 53 bits before."""
    single = types.float32(value)
    return single if abs(single) >= LEAST_NORMAL else single * types.float32(0)


@njit
def dot_bfloats(sums, x, w):
    _expect_product(sums, x, w)
    for row in range(_rows(sums)):
        for column in range(_row_bytes(sums) // 4):
            even = odd = types.float32(0)
            for k in range(_row_bytes(x) // 4):
                even = _rounded(even + _number(x, row, 2 * k) * _number(w, k, 2 * column))
                odd = _rounded(odd + _number(x, row, 2 * k + 1) * _number(w, k, 2 * column + 1))
            place = (sums * _TILE + row * _ROW) // 4 + column
            both = _rounded(types.float64(even) + types.float64(odd))
            _float_sums()[place] = _rounded(types.float64(_rounded(_float_sums()[place])) + both)


PROGRAM = TileUnit(make_configure, release, zero, load, store, dot, dot_bfloats)
