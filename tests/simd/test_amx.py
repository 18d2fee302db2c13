"""Tile registers: how they are configured, and the instructions that LLVM emits for them."""

import ast
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import reference
import tile_unit
from numba import njit

from nbgpt.abi.amx import NEEDED
from nbgpt.simd import data
from nbgpt.simd.amx import _configuration

SHAPES = (*(4 * [(16, 64)]), *(2 * [(16, 32)]), *(2 * [(8, 64)]))


def test_the_operand_of_ldtilecfg():
    """Table 3-10 of the manual's volume 2A: palette, start row, bytes of a row from 16 on, rows from 48 on."""
    stored = np.frombuffer(_configuration(SHAPES), np.uint8)
    assert len(stored) == 64
    assert stored[:16].tolist() == [1] + 15 * [0]
    assert stored[16:48].view(np.uint16).tolist() == [64, 64, 64, 64, 32, 32, 64, 64] + 8 * [0]
    assert stored[48:].tolist() == [16, 16, 16, 16, 16, 16, 8, 8] + 8 * [0]


INSTRUCTIONS = """
import re
from numba import cfunc, types
from nbgpt.backend import compiler
from nbgpt.simd.amx import AMX

machine = compiler.target_machine()
compiler._only_translate(machine)
configure, release, zero = AMX.configure(8 * ((16, 64),)), AMX.release, AMX.zero
load, store, dot, dot_bfloats = AMX.load, AMX.store, AMX.dot, AMX.dot_bfloats

@cfunc(types.void(*3 * (types.CPointer(types.uint8),)))
def multiply(out, x, w):
    configure()
    load(5, x, 0, 64)
    load(6, w, 1024, 64)
    zero(3)
    dot(3, 5, 6)
    dot_bfloats(2, 6, 5)
    store(3, out, 0, 256)
    release()

text = machine.emit_assembly(compiler._linked(multiply._library))
print(re.findall(r"^\\t((?:ldtilecfg|tile|tdp).*)$", text, re.MULTILINE))
"""


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="AMX is a part of x86-64")
def test_instructions_stand_in_their_order():
    features = ",".join(f"+{name}" for name in sorted(NEEDED))
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path = {sys.path}\n{INSTRUCTIONS}"],
        env={**os.environ, "NUMBA_CPU_NAME": "sapphirerapids", "NUMBA_CPU_FEATURES": features},
        capture_output=True,
        text=True,
        check=True,
    )
    found = ast.literal_eval(done.stdout)
    names = " ".join(line.split()[0] for line in found)
    assert names == "ldtilecfg tileloadd tileloadd tilezero tdpbsud tdpbf16ps tilestored tilerelease"
    registers = [[int(name) for name in re.findall(r"%tmm(\d)", line)] for line in found]
    assert registers == [[], [5], [6], [3], [6, 5, 3], [5, 6, 2], [3], []]  # AT&T's order: the last is written


# --- The program that stands in for the instructions in tests ---------------------------------------------------------

UNIT = tile_unit.PROGRAM
configure, release, zero = UNIT.configure(SHAPES), UNIT.release, UNIT.zero
load, store, dot, dot_bfloats = UNIT.load, UNIT.store, UNIT.dot, UNIT.dot_bfloats


@njit(error_model="numpy")
def multiply(out, x, w, is_configured):  # out int32 [16, 20] as bytes, x int8 [16, 40], w uint8 [8, 64]
    if is_configured:
        configure()
    load(4, data(x), 8, 40)
    load(7, data(w), 0, 64)
    zero(2)
    dot(2, 4, 7)
    dot(2, 4, 7)
    store(2, data(out), 16, 80)
    release()


def test_the_program_multiplies_as_numpy_does(rng):
    x, w = rng.integers(-128, 128, (16, 40), np.int8), rng.integers(0, 256, (8, 16, 4), np.uint8)
    out = np.full((16, 20), 7, np.int32)
    tile_unit.COUNTS[:] = 0
    multiply(out.view(np.uint8).reshape(-1), x.view(np.uint8).reshape(-1), w.reshape(-1), True)
    by_input = w.swapaxes(1, 2).reshape(32, 16).astype(np.int64)
    np.testing.assert_array_equal(out[:, 4:], 2 * x[:, 8:].astype(np.int64) @ by_input)
    assert (out[:, :4] == 7).all()
    assert tile_unit.COUNTS.tolist() == [0, 2, 0, 1]


@njit(error_model="numpy")
def multiply_bfloats(out, x, w):  # out float32 [16, 16] as bytes, x bfloat16 [16, 16], w bfloat16 [8, 32]
    configure()
    load(4, data(x), 0, 32)
    load(7, data(w), 0, 64)
    load(2, data(out), 0, 64)
    dot_bfloats(2, 4, 7)
    dot_bfloats(2, 4, 7)
    store(2, data(out), 0, 64)
    release()


def bfloat16_product(x, w, out):  # float32 [16, 16], [16, 16], [16, 16]
    """out + x @ w, as the manual says it: even inputs, odd inputs, their sum, the sum of that and out."""
    even = odd = np.zeros((16, 16), np.float32)
    for k in range(0, 16, 2):
        even, odd = (reference.fma(x[:, i, None], w[i], chain) for i, chain in ((k, even), (k + 1, odd)))
    return out + (even + odd)


def test_the_program_multiplies_bfloat16_in_the_order_of_the_manual(rng):
    x, w, start = (reference.bfloat16(rng.standard_normal((16, 16)), 0) for _ in range(3))
    out = start.copy()
    as_bytes = [(part.view(np.uint32) >> 16).astype(np.uint16) for part in (x, w.reshape(8, 2, 16).swapaxes(1, 2))]
    multiply_bfloats(out.view(np.uint8).reshape(-1), *(part.reshape(-1).view(np.uint8) for part in as_bytes))
    np.testing.assert_array_equal(out, bfloat16_product(x, w, bfloat16_product(x, w, start)))
    assert not np.array_equal(out, start + 2 * (x @ w))  # other orders have other bits


DENORMAL, LEAST = 2.0**-127, 2.0**-126


@pytest.mark.parametrize(
    ("x", "w", "start", "expected"),
    [
        (2.0**-64, 2.0**-62, 0, 2 * LEAST),  # twice, since there are two products
        (2.0**-64, 2.0**-63, 0, 0),  # the product is denormal
        (DENORMAL, 2.0**100, 0, 0),  # so is the input
        (1, 0, DENORMAL, 0),  # so is what the register held
        (-1, 1.5 * LEAST, 2 * LEAST, -1.5 * LEAST),  # so is the first sum, LEAST / 2: the second product is left
    ],
)
def test_the_program_counts_denormal_numbers_as_zero(x, w, start, expected):
    out = np.full((16, 16), start, np.float32)
    inputs = [np.zeros((16, 16), np.float32), np.zeros((8, 16, 2), np.float32)]
    inputs[0][:, 3], inputs[1][1, :, 1] = x, w
    as_bytes = [(part.view(np.uint32) >> 16).astype(np.uint16).reshape(-1).view(np.uint8) for part in inputs]
    multiply_bfloats(out.view(np.uint8).reshape(-1), *as_bytes)
    np.testing.assert_array_equal(out, np.float32(expected))


def test_the_program_notices_registers_without_shapes():
    tile_unit.COUNTS[:] = 0
    multiply(*(np.zeros(2000, np.uint8) for _ in range(3)), False)
    assert tile_unit.COUNTS[tile_unit.REFUSED] > 0
