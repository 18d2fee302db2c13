"""Products by AMX beside those of the vector kernels, on one thread: GOP/s of both and their ratio.

    NBGPT_AMX=1 python bench/kernels/amx.py

Each product is run by both in turn; figures are medians. Run nothing beside it. Exit code 1 if bits differ, or if AMX
is not used.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from test_matmul import product

from nbgpt.abi.amx import DTYPES
from nbgpt.abi.targets import amx_obstacle
from nbgpt.kernels import amx, matmul

SIZES = [(n_rows, *sizes) for n_rows in (512, 64, 16) for sizes in ((768, 3072), (3072, 768))]
"""Rows, inputs, outputs: matrices of GPT-2 124M."""


def seconds(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare(dtype: str, sizes: tuple[int, int, int], rounds: int) -> bool:
    """Print a line about a product; True if both have the same bits."""
    (vectors, _, expected), (tiles, _, found) = (product(by.MATMULS[dtype], dtype, *sizes) for by in (matmul, amx))
    vectors(), tiles()  # compiles
    is_same = np.array_equal(found.view(np.int32), expected.view(np.int32))
    times = np.array([[seconds(vectors), seconds(tiles)] for _ in range(rounds)])
    speeds, ratio = 2e-9 * np.prod(sizes) / np.median(times, axis=0), np.median(times[:, 0] / times[:, 1])
    said = f"vectors {speeds[0]:.0f}, AMX {speeds[1]:.0f} GOP/s, {ratio:.2f} times"
    print(f"{dtype} {' x '.join(map(str, sizes))}: {said}; {'the same bits' if is_same else 'OTHER BITS'}")
    return is_same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    options = parser.parse_args()
    if obstacle := amx_obstacle():
        print(f"no AMX here: {obstacle}", file=sys.stderr)
        return 1
    are_same = [compare(dtype, sizes, options.rounds) for dtype in DTYPES for sizes in SIZES]
    return int(not all(are_same))


if __name__ == "__main__":
    sys.exit(main())
