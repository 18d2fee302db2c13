"""Logits -> whole-number frequencies, with the same bits on every CPU.

Compressor and decompressor must agree on every frequency. exp() of libm and of NumPy differs between CPUs, and a sum of
floats depends on its order, so neither stands here: differences of float32 are rounded as IEEE 754 says, multiplied by
a power of two and rounded to whole numbers, which look up a table of exact integers; only integers are added.
"""

from __future__ import annotations

import functools
from decimal import Context, Decimal

import numpy as np

STEPS = 128
"""Steps of the table in a nat. Rounding to them costs about 1 / (24 STEPS^2) nats a token, 2.5e-6."""
BITS = 30
"""The likeliest token has frequency 2^BITS, one that is BITS bits or more less likely has frequency 1."""


@functools.cache
def exponentials() -> np.ndarray:
    """uint32 [n]: 2^BITS exp(-i / STEPS) as whole numbers; the last is 1.

    `decimal` rounds its exp() correctly (General Decimal Arithmetic), so the table is the same everywhere.
    """
    context = Context(prec=40)
    table = [1 << BITS]
    while table[-1] > 1:
        power = context.exp(context.divide(Decimal(-len(table)), Decimal(STEPS)))
        table.append(max(1, int(context.to_integral_value(context.multiply(power, Decimal(1 << BITS))))))
    return np.array(table, np.uint32)


def frequencies(logits: np.ndarray) -> np.ndarray:
    """Logits float32 [..., n_vocab] -> frequencies uint32 of the same shape, in proportion to exp(logit), at least 1.

    A logit of -inf has frequency 1. Raises ValueError if the largest is not a finite number.
    """
    table = exponentials()
    top = logits.max(axis=-1, keepdims=True)
    if not np.isfinite(top).all():
        raise ValueError("the model's logits are not finite numbers, so they give no probabilities: take another model")
    with np.errstate(over="ignore"):  # a difference may be infinite: its token is as rare as can be
        steps = top - logits
        steps *= np.float32(STEPS)
    np.minimum(steps, np.float32(len(table) - 1), out=steps)
    counts: np.ndarray = table.take(np.rint(steps, out=steps).astype(np.int16), mode="clip")
    return counts
