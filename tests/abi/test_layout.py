"""The arithmetic of layouts."""

import math
from fractions import Fraction

import pytest

from nbgpt.abi import layout
from nbgpt.abi.layout import ceil_div, padded


@pytest.mark.parametrize("size", [1, 2, 12, 16, 64])
def test_rounding_up(size):
    for n in range(200):
        assert ceil_div(n, size) == math.ceil(Fraction(n, size))
        assert padded(n, size) == size * math.ceil(Fraction(n, size))


def test_sizes_divide_as_the_kernels_assume():
    assert all(layout.STRIDE % group == 0 for group in layout.GROUP.values())
    assert layout.STRIDE % (layout.LANES * layout.PANELS) == 0  # rows of outputs hold whole pairs of panels
    assert layout.PAGE % layout.LANES == layout.SAMPLING_BLOCK % layout.LANES == 0
    assert set(layout.HEAD_DTYPE.values()) == set(layout.LOGIT_PLANES)
