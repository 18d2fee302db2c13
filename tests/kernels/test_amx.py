"""Products by AMX: the bits of the vector kernels, for any number of rows, whoever multiplies the tiles.

Where the CPU has no AMX, or nobody asked for it, a program stands in for the instructions (tile_unit.py): the kernels
are those of the package all the same.
"""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tile_unit
from guarded import guarded_zeros
from jobs import new_job
from numba import njit, types

from nbgpt.abi.amx import DTYPES, NEEDED
from nbgpt.abi.job import MODEL_TENSORS
from nbgpt.abi.layout import LANES, LEAST_ACTIVATION, LEAST_WEIGHT, ROW_TILE, padded
from nbgpt.abi.targets import amx_obstacle
from nbgpt.kernels import matmul
from nbgpt.kernels.amx import make_matmuls
from nbgpt.kernels.fields import logits, n_inner, n_rows, n_vocab
from nbgpt.kernels.linear import inner_row, make_add_planes, make_linear
from nbgpt.kernels.phases import in_order
from nbgpt.simd import data
from nbgpt.simd.amx import AMX
from nbgpt.simd.codegen import TARGET
from nbgpt.weights.bfloat16 import to_bfloat16

MOST_ROWS = 70
SHAPES = [(40, 17), (130, 61), (256, 96), (320, 100), (640, 33)]  # n_in, n_out: parts of groups, steps and panels
KINDS = (*DTYPES, "int8 head")
UNITS = {"vectors": None, "program": tile_unit.PROGRAM, "AMX": AMX}
pytestmark = pytest.mark.skipif(
    not (TARGET.avx512 and TARGET.vnni), reason="AMX has the row tiles of AVX-512 with VNNI: 16 rows of bytes"
)
of_units = pytest.mark.parametrize(
    "unit",
    ["program", pytest.param("AMX", marks=pytest.mark.skipif(bool(amx_obstacle()), reason=f"AMX: {amx_obstacle()}"))],
)


def matmul_of(kind, unit):
    vectors = matmul.MATMULS, matmul.HEAD_MATMULS
    blocks, heads = make_matmuls(UNITS[unit]) if UNITS[unit] else vectors
    return heads["int8"] if kind == "int8 head" else blocks[kind]


def test_the_types_that_have_kernels():
    blocks, heads = make_matmuls(tile_unit.PROGRAM)
    assert {dtype for dtype, kernels in blocks.items() if kernels is not matmul.MATMULS[dtype]} == set(DTYPES)
    assert {dtype for dtype, kernels in heads.items() if kernels is not matmul.HEAD_MATMULS[dtype]} == {
        "bfloat16",
        "int8",
    }


@functools.cache
def compiled(kind, unit):
    """The phases of a linear layer: packing and product."""
    kernels = matmul_of(kind, unit)
    then = make_add_planes(kernels.planes)
    phases = in_order(make_linear(kernels, n_rows, inner_row, "lm_head", (n_inner, n_vocab), logits, then))

    @njit(error_model="numpy", nogil=True)
    def run(job, thread):
        phases(data(job), types.int64(0), types.int64(0), types.int64(thread))

    return run


def random_values(rng, kind, n):
    """n weights as bytes: any whole numbers; bfloat16 of all magnitudes from the least on."""
    if kind == "bfloat16":
        return to_bfloat16(rng.standard_normal(n) * np.exp2(rng.integers(-64, 1, n))).view(np.uint8)
    return rng.integers(0, 256, n // 2 if kind == "int4" else n, np.uint8)


class Matrix:
    """Random weights in the native file's layout, and scales and offsets of all signs."""

    def __init__(self, rng, kind, n_in, n_out):
        self.n_in, self.n_out, self.kernels = n_in, n_out, matmul_of(kind, "vectors")
        self.padded_in, outputs = padded(n_in, self.kernels.group), padded(n_out, 2 * LANES)
        values = random_values(rng, kind, outputs * self.padded_in)
        parts = (rng.standard_normal((2, outputs * self.padded_in // self.kernels.group)) / 50).astype(np.float16)
        tensors = [values, *(part.view(np.uint8) for part in parts)]
        self.file = guarded_zeros(sum(part.nbytes for part in tensors), "uint8")
        self.file[:] = np.concatenate(tensors)
        ends = np.cumsum([part.nbytes for part in tensors])
        names = [f"lm_head.weight{part}" for part in ("", ".scale", ".offset")]
        places = dict(zip(names, (0, *ends[:-1]), strict=True))
        self.offsets = np.array([places.get(name, 0) for name in MODEL_TENSORS], np.int64)


def product(kind, unit, x, matrix, n_threads=3):
    """x @ the matrix, float32 [n_rows * planes, stride]; all work items are done by one thread."""
    planes, group = matrix.kernels.planes, matrix.kernels.group
    rows = padded(len(x) * planes, ROW_TILE)
    source = guarded_zeros((len(x), padded(matrix.n_in, 64)), "float32")
    source[:, : matrix.n_in] = x
    out = guarded_zeros((len(x) * planes, padded(matrix.n_out, 64)), "float32")
    buffers = {
        "inner": source,
        "logits": out,
        "packed": guarded_zeros(rows * matrix.padded_in * matrix.kernels.value_bytes, "uint8"),
        "packed_sums": guarded_zeros(rows * matrix.padded_in // group, "int32"),
        "packed_scales": guarded_zeros(rows * matrix.padded_in // group, "float32"),
        "weights": matrix.file,
        "model_offsets": matrix.offsets,
    }
    sizes = {"n_rows": len(x), "n_inner": matrix.n_in, "n_vocab": matrix.n_out, "n_threads": n_threads}
    compiled(kind, unit)(new_job(**sizes, **buffers), 0)
    return out


def rows_of(rng, n_in):
    x = rng.standard_normal((MOST_ROWS, n_in), np.float32)
    x[3] = 0
    x[4, :64] = 1e-44  # a group of which nothing is left
    x[5, 5] = 3e3  # an outlier channel of a trained GPT-2
    x[6] *= 1e30
    x[7] = np.where(np.arange(n_in) % 2, 127, -127)
    x[8] *= LEAST_ACTIVATION
    return x


@of_units
@pytest.mark.parametrize(("n_in", "n_out"), SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_rows_has_the_bits_of_the_vector_kernels(rng, kind, n_in, n_out, unit):
    matrix, x = Matrix(rng, kind, n_in, n_out), rows_of(rng, n_in)
    assert np.isfinite(product(kind, "vectors", x, matrix)).all()
    for n in range(1, MOST_ROWS + 1):
        found, expected = (product(kind, by, x[:n], matrix) for by in (unit, "vectors"))
        np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("kind", KINDS)
def test_whole_row_tiles_go_by_tiles_and_the_cpu_would_refuse_nothing(rng, kind):
    n_in, n_out = 320, 100
    matrix, x = Matrix(rng, kind, n_in, n_out), rows_of(rng, n_in)
    n_panels, n_groups = padded(n_out, 2 * LANES) // LANES, matrix.padded_in // matrix.kernels.group
    for n in (1, 7, 8, 15, 16, 17, 40, MOST_ROWS):
        tile_unit.COUNTS[:] = 0
        product(kind, "program", x[:n], matrix)
        n_tiles = n * matrix.kernels.planes // ROW_TILE
        assert tile_unit.COUNTS[tile_unit.DOTS] == n_tiles * n_panels * n_groups
        assert tile_unit.COUNTS[tile_unit.CONFIGURATIONS] == (n_tiles > 0)
        assert tile_unit.COUNTS[tile_unit.REFUSED] == 0
        assert tile_unit.COUNTS[tile_unit.CONFIGURED] == 0  # the registers were released


@of_units
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_whole_numbers_at_their_limits_do_not_overflow(rng, kind, unit):
    matrix = Matrix(rng, kind, 256, 32)
    n_values = 32 * 256 // (2 if kind == "int4" else 1)
    x = np.full((32, 256), 127, np.float32)
    x[1::2] = -127
    for byte in (0, 255):
        matrix.file[:n_values] = byte
        found, expected = (product(kind, by, x, matrix) for by in (unit, "vectors"))
        np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


@of_units
def test_the_least_magnitudes_of_bfloat16_make_no_denormal_number(rng, unit):
    """AMX would count it as 0, the vector kernels would not."""
    matrix, n_values = Matrix(rng, "bfloat16", 256, 32), 32 * 256
    matrix.file[: 2 * n_values] = to_bfloat16(rng.uniform(1, 2, n_values) * LEAST_WEIGHT).view(np.uint8)
    x = (rng.uniform(1, 2, (32, 256)) * rng.choice([-1, 1], (32, 256)) * LEAST_ACTIVATION).astype(np.float32)
    found, expected = (product("bfloat16", by, x, matrix) for by in (unit, "vectors"))
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))
    assert expected.any()


@pytest.mark.parametrize("n_threads", [1, 8])
@pytest.mark.parametrize("kind", ["int8", "bfloat16"])
def test_work_items_of_any_size(rng, kind, n_threads):
    """One thread of few takes several pairs of panels at a time; with long rows an item has few row tiles."""
    matrix, x = Matrix(rng, kind, 3072, 1000), rng.standard_normal((200, 3072), np.float32)
    found, expected = (product(kind, unit, x, matrix, n_threads) for unit in ("program", "vectors"))
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


# --- The CPU's own instructions ---------------------------------------------------------------------------------------

ASSEMBLY = """
import re, sys
from nbgpt.backend.compiler import optimized

_, module, machine = optimized(sys.argv[1])
print(machine.emit_assembly(module))
"""
TILE_INSTRUCTION = r"ldtilecfg|tilerelease|tilezero|tileloadd|tilestored|tdp\w+"
CPUINFO = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""


def assembly(dtype, features):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path = {sys.path}\n{ASSEMBLY}", dtype],
        env={**os.environ, "NUMBA_CPU_NAME": "sapphirerapids", "NUMBA_CPU_FEATURES": features},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


GROUP = "tilezero tdpbsud tilezero tdpbsud tilestored tilestored"
BLOCK = "tileloadd tileloadd tileloadd tdpbf16ps tdpbf16ps tileloadd tdpbf16ps tdpbf16ps"


@pytest.mark.parametrize(("dtype", "product", "part"), [("int4", "tdpbsud", GROUP), ("bfloat16", "tdpbf16ps", BLOCK)])
def test_the_assembly_configures_multiplies_and_releases(dtype, product, part):
    """As far as LLVM can tell on another machine."""
    features = ",".join(f"+{name}" for name in sorted(NEEDED | {"fma", "f16c", "avx2", "bmi", "bmi2", "popcnt"}))
    found = re.findall(TILE_INSTRUCTION, assembly(dtype, features))
    assert set(found) == {"ldtilecfg", "tilerelease", "tilezero", "tileloadd", "tilestored", product}
    assert found.count("ldtilecfg") == found.count("tilerelease")
    assert " ".join(found).count(part) >= found.count("ldtilecfg")


@pytest.mark.skipif(" amx_int8" not in CPUINFO, reason="this CPU has no AMX (amx_int8 in /proc/cpuinfo)")
def test_a_cpu_with_amx_computes_everybodys_bits():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU")}
    environment["NBGPT_AMX"] = "1"

    def nbgpt(*command):
        done = [sys.executable, "-m", "nbgpt", *command]
        return subprocess.run(done, env=environment, capture_output=True, text=True, check=False)

    said = re.search(r"^AMX +(.*)$", nbgpt("info").stdout, re.MULTILINE)[1]
    if "system does not allow" in said:
        pytest.skip(said)
    assert said.startswith("used")
    nbgpt("verify")  # which says that it compiles
    done = nbgpt("verify")
    assert (done.returncode, done.stderr) == (0, "")
