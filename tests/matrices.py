"""Matrices for tests of quantization and packing."""

import numpy as np
from hypothesis import strategies as st


@st.composite
def matrices(draw):
    """Matrices of many sizes and magnitudes, with groups of zeros, lone weights and outliers."""
    n_out, n_in = draw(st.integers(1, 40)), draw(st.integers(1, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    w = rng.standard_normal((n_out, n_in), np.float32) * np.float32(10.0 ** draw(st.integers(-7, 3)))
    w += np.float32(draw(st.sampled_from([0, 0, 0.01, 100])))
    w[rng.random(w.shape) < draw(st.sampled_from([0, 0.3, 0.97, 1]))] = 0
    w[:, rng.integers(n_in)] *= draw(st.sampled_from([0, 1, 4]))
    return w
