"""Small models whose weights have the same bits wherever they are made: no rounding and no library decides on them."""

from __future__ import annotations

import numpy as np

from ..config import GPT2Config
from ..weights import NUMPY, Weights, in_memory
from ..weights.bfloat16 import to_bfloat16

SIZES = {"n_layer": 2, "n_head": 8, "n_embd": 192, "n_inner": 320, "n_vocab": 96, "n_ctx": 300}
"""Of the small model: matrices without padding."""


def whole_numbers(seed: int | list[int], n: int, most: int) -> np.ndarray:
    """int64 [n], each from 0 to most - 1: raw words of a bit generator, which NumPy promises never to change."""
    words = np.random.PCG64(seed).random_raw(n)
    numbers: np.ndarray = ((words >> np.uint64(32)) % np.uint64(most)).astype(np.int64)
    return numbers


def exact_weights(config: GPT2Config, dtype: str) -> Weights:
    """Weights of whole random numbers times powers of two, written as the kernels read them.

    No rounding, no conversion and no generator's choice can change their bits. The config must leave no padding.
    """

    def fill(name: str, kind: str, n: int) -> np.ndarray:
        numbers = whole_numbers(list(name.encode()), n, 1024)
        step = 2.0**-16 if dtype == "int4" and not name.startswith("wte") else 2.0**-20
        values: np.ndarray = (numbers - 512) * 2.0**-11 + ("ln_" in name and name.endswith("weight"))
        if kind == "U8":
            values = np.maximum(numbers >> 2, 1)  # 0 would be -128, which no int8 file holds
        elif name.endswith(".scale"):
            values = (1024 + numbers) * step
        elif name.endswith(".offset"):
            values = (1024 + numbers) * -8 * step
        elif kind == "BF16":
            return to_bfloat16(((numbers >> 2) - 128) * 2.0**-9)  # exactly
        return np.asarray(values, NUMPY[kind])

    return in_memory(config, dtype, "exact", fill)
