"""Arrays inside JSON."""

import json

import numpy as np
import pytest
from packing import unpacked

from nbgpt.analysis.explain.packed import pack, pack_floats


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_arrays_come_back(rng, dtype):
    array = (100 * rng.random((3, 4, 5))).astype(dtype)
    found = unpacked(json.loads(json.dumps(pack(array.transpose(2, 0, 1)))))
    np.testing.assert_array_equal(found, array.transpose(2, 0, 1))
    assert found.dtype == dtype


def test_floats_are_rounded_to_three_digits(rng):
    numbers = rng.standard_normal(1000) * 10.0 ** rng.integers(-9, 9, 1000)
    found = unpacked(pack_floats(numbers))
    np.testing.assert_allclose(found, numbers, rtol=2.0**-12)
    assert len(pack_floats(numbers)["data"]) < 0.8 * len(pack(numbers.astype(np.float32))["data"])
    assert unpacked(pack_floats(np.zeros(3))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e39])
def test_numbers_that_overflow(bad):
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="overflow on this text"):
        pack_floats(np.array([1, bad]))
