"""Frequencies of tokens, against whole numbers of unlimited size and softmax in float64."""

import math
from fractions import Fraction
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbgpt.compression.frequencies import BITS, STEPS, exponentials, frequencies
from nbgpt.verification.exact import whole_numbers


def exact_table() -> list[int]:
    """2^BITS exp(-i / STEPS) rounded, in fixed point of 200 bits."""
    one = 1 << 200
    step = sum(Fraction((-1) ** n, math.factorial(n) * STEPS**n) for n in range(30))  # exp(-1 / STEPS)
    factor, power, table = round(step * one), one, []
    while not table or table[-1] > 1:
        table.append((power + (1 << 199 - BITS)) >> 200 - BITS)
        power = power * factor >> 200
    return table


def test_the_table_is_exact():
    assert exponentials().tolist() == exact_table()
    assert exponentials().dtype == np.uint32


@given(st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=8))
def test_frequencies_are_in_proportion(values):
    half_step = 0.5 / STEPS + 1e-5  # and the rounding of a float32
    for count, value in zip(frequencies(np.array(values, np.float32)).tolist(), values, strict=True):
        least, most = (2.0**BITS * math.exp(value - max(values) + error) for error in (-half_step, half_step))
        assert max(1, least - 0.5) <= count <= max(1, most + 0.5)


@pytest.mark.parametrize("scale", [0.01, 1, 3, 10])
def test_little_is_lost(rng, scale):
    """Of a text that the model itself would write, in a vocabulary as large as GPT-2's: KL divergence in nats."""
    logits = (scale * rng.standard_normal((4, 50257))).astype(np.float32)
    p = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    counts = frequencies(logits).astype(np.float64)
    q = counts / counts.sum(axis=1, keepdims=True)
    assert 0 <= (p * np.log(p / q)).sum(axis=1).max() < 1e-4


def test_a_row_does_not_depend_on_the_others(rng):
    logits = rng.standard_normal((3, 100)).astype(np.float32)
    assert np.array_equal(frequencies(logits), [frequencies(row) for row in logits])


def test_what_has_no_chance_can_be_written_still():
    logits = np.array([-np.inf, 0, -3e38, 3e38], np.float32)
    assert frequencies(logits).tolist() == [1, 1, 1, 1 << BITS]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_logits_are_refused(value):
    with pytest.raises(ValueError, match="not finite"):
        frequencies(np.array([0, value, 1], np.float32))


def test_the_bits_stay_what_they_are():
    """On every CPU, with every version of NumPy."""
    logits = (whole_numbers(7, 5000, 1 << 20).astype(np.float32) - np.float32(1 << 19)) * np.float32(2.0**-15)
    digest = sha256(frequencies(logits).astype("<u4").tobytes()).hexdigest()
    assert digest == "e3c42a3f89825371334ed3135678ab918f18395b20b601204a08b73c745d1db8"
