"""Panels: every weight is where the native file's layout says, and unpacking undoes packing."""

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import matrices

from nbgpt import weights
from nbgpt.abi.layout import HEAD_DTYPE
from nbgpt.weights import packing
from nbgpt.weights.quantize import dequantize_int4, dequantize_int8, quantize_int4, quantize_int8

HALF = 2.0**-11  # relative precision of float16
DTYPES = tuple(HEAD_DTYPE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_out", "n_in"), [(1, 1), (16, 64), (33, 41), (61, 200), (96, 128)])
def test_panels_lie_as_the_native_file_wants_them(dtype, n_out, n_in):
    w = np.random.default_rng(n_in).standard_normal((n_out, n_in), np.float32)
    arrays = packing.encode(w, dtype)
    expected = [(weights.NUMPY[kind], shape) for kind, shape in weights.matrix_shapes("w", dtype, n_in, n_out).values()]
    assert [(array.dtype, array.shape) for array in arrays] == expected
    assert all(array.flags.c_contiguous for array in arrays)


@pytest.mark.parametrize(("n_out", "n_in"), [(1, 1), (33, 41), (61, 200)])
def test_every_weight_is_where_the_reference_looks(n_out, n_in):
    w = np.random.default_rng(n_out).standard_normal((n_out, n_in), np.float32)
    o, k = np.indices((n_out, n_in))
    np.testing.assert_array_equal(packing.encode(w, "float32")[0][reference.place_float(o, k)], w)
    np.testing.assert_array_equal(packing.encode(w, "float16")[0][reference.place_float(o, k)], w.astype(np.float16))

    values = packing.encode(w, "bfloat16")[0][reference.place_bfloat16(o, k)].astype(np.uint32) << 16
    np.testing.assert_array_equal(values.view(np.float32), reference.bfloat16(w, reference.LEAST_WEIGHT))

    q, scale = quantize_int8(w)
    values, scales = packing.encode(w, "int8")
    np.testing.assert_array_equal(values[reference.place_int8(o, k)].astype(int) - 128, q)
    np.testing.assert_array_equal(scales[reference.place_scale(*np.indices(scale.shape))], scale)

    q, scale, offset = quantize_int4(w)
    values, scales, offsets = packing.encode(w, "int4")
    place, shift = reference.place_int4(o, k)
    np.testing.assert_array_equal(values[place] >> shift & 15, q)
    np.testing.assert_array_equal(scales[reference.place_scale(*np.indices(scale.shape))], scale)
    np.testing.assert_array_equal(offsets[reference.place_scale(*np.indices(scale.shape))], offset)


def test_padding_is_worth_zero():
    w = np.ones((17, 40), np.float32)
    for dtype in DTYPES:
        everything = packing.decode(packing.encode(w, dtype), dtype, 32, 40)
        np.testing.assert_allclose(everything[:17], 1, rtol=HALF)
        assert (everything[17:] == 0).all()
    values, _ = packing.encode(w, "int8")
    assert (packing.unpack_int8(values, np.ones((2, 1, 16), np.float16), 32, 64)[0][:, 40:] == 0).all()


@given(matrices(), st.sampled_from(DTYPES))
@settings(max_examples=60, deadline=None)
def test_decode_undoes_encode(w, dtype):
    decoded = packing.decode(packing.encode(w, dtype), dtype, *w.shape)
    assert decoded.dtype == np.float32
    if dtype in ("float32", "float16"):
        np.testing.assert_array_equal(decoded, w.astype(dtype))
    elif dtype == "bfloat16":
        np.testing.assert_array_equal(decoded, reference.bfloat16(w, reference.LEAST_WEIGHT))
    elif dtype == "int8":
        np.testing.assert_array_equal(decoded, dequantize_int8(*quantize_int8(w)))
    else:
        np.testing.assert_array_equal(decoded, dequantize_int4(*quantize_int4(w)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_broken_weights_are_refused(dtype, bad):
    w = np.zeros((20, 70), np.float32)
    w[19, 69] = bad
    with pytest.raises(ValueError, match=f"weights hold {bad}"):
        packing.encode(w, dtype)


@pytest.mark.parametrize(
    ("dtype", "fits", "beyond"),
    [("float16", 6e4, 7e4), ("bfloat16", 3.38e38, 3.4e38), ("int8", 8e6, 9e6), ("int4", 3e4, 4e4)],
)
def test_weights_too_large_are_refused(dtype, fits, beyond):
    w = np.linspace(-1, 1, 64, dtype=np.float32)[None]
    decoded = packing.decode(packing.encode(w * np.float32(fits), dtype), dtype, 1, 64)
    np.testing.assert_allclose(decoded / fits, w, atol=0.04)
    with pytest.raises(ValueError, match=f"weights reach .*{dtype} holds"):
        packing.encode(w * np.float32(beyond), dtype)


@pytest.mark.parametrize("n", [1, 32, 33])
def test_vectors_are_padded_to_pairs_of_panels(n):
    padded = packing.pad_vector(np.ones(n, np.float16))
    assert padded.dtype == np.float32
    assert len(padded) == reference.padded(n, reference.TILE)
    assert padded.sum() == n
