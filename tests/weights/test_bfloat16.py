"""bfloat16 against its definition: 8 bits of a mantissa, halves to even."""

import numpy as np
import pytest
import reference

from nbgpt.abi.layout import LEAST_WEIGHT
from nbgpt.weights.bfloat16 import BFLOAT16_MAX, from_bfloat16, to_bfloat16

EVERY = np.arange(1 << 16, dtype=np.uint16)
FINITE = EVERY[EVERY & 0x7F80 != 0x7F80]


def test_the_upper_half_of_a_float32():
    wide = np.zeros((len(EVERY), 2), np.uint16)
    wide[:, 1] = EVERY
    np.testing.assert_array_equal(from_bfloat16(EVERY), wide.view("<f4")[:, 0])
    assert np.isinf(from_bfloat16(np.array([0x7F80, 0xFF80], np.uint16))).all()


def test_what_is_a_bfloat16_stays():
    values = from_bfloat16(FINITE)
    large = np.abs(values) >= LEAST_WEIGHT
    np.testing.assert_array_equal(to_bfloat16(values)[large], FINITE[large])
    assert (to_bfloat16(values)[~large] == 0).all()
    assert values.max() == BFLOAT16_MAX


@pytest.mark.parametrize("toward", [-np.inf, None, np.inf])
def test_the_nearest_with_halves_to_even(toward):
    values = from_bfloat16(FINITE[(from_bfloat16(FINITE) >= LEAST_WEIGHT)])
    between = ((values[:-1].astype(np.float64) + values[1:]) / 2).astype(np.float32)  # exactly
    if toward is not None:
        between = np.nextafter(between, np.float32(toward))
    for sign in (1, -1):
        found = from_bfloat16(to_bfloat16(sign * between))
        np.testing.assert_array_equal(found, reference.bfloat16(sign * between, LEAST_WEIGHT))


def test_other_types_are_rounded_as_float32():
    half = np.array([[1.001, -3.14], [0, 6e-8]], np.float16)
    np.testing.assert_array_equal(to_bfloat16(half), to_bfloat16(half.astype(np.float32)))
    assert to_bfloat16(half).shape == (2, 2)
