import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from nbgpt import weights
from nbgpt.abi.layout import HEAD_DTYPE
from nbgpt.weights import packing
from nbgpt.weights.quantize import dequantize_int4, dequantize_int8, equalize, quantize_int4, quantize_int8

TINY = 2.0**-24  # the least that float16 holds
HALF = 2.0**-11  # how precisely it holds others
DTYPES = tuple(HEAD_DTYPE)


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


def groups_of(w, size):
    """[n_out, n_in] -> [n_out, groups, size], NaN beyond the inputs that there are."""
    n_out, n_in = w.shape
    out = np.full((n_out, -(-n_in // size) * size), np.nan, np.float32)
    out[:, :n_in] = w
    return out.reshape(n_out, -1, size)


@given(matrices())
@settings(max_examples=60, deadline=None)
def test_int8_is_within_half_a_step(w):
    q, scale = quantize_int8(w)
    assert q.dtype == np.int8
    assert scale.dtype == np.float16
    assert np.abs(q.astype(int)).max() <= 127
    error = groups_of(np.abs(dequantize_int8(q, scale) - w), 64)
    bound = scale.astype(np.float32)[..., None] * 0.5001 + 127 * TINY / 2
    assert not (error > bound).any()
    largest = np.nanmax(groups_of(np.abs(w), 64), axis=-1)
    assert (scale <= largest / 127 * (1 + HALF) + TINY).all()
    assert ((scale > 0) == (largest > 0)).all()


@given(matrices())
@settings(max_examples=60, deadline=None)
def test_int4_is_no_worse_than_steps_over_the_whole_range(w):
    q, scale, offset = quantize_int4(w)
    assert q.dtype == np.uint8
    assert q.max() <= 15
    assert scale.dtype == offset.dtype == np.float16
    assert np.isfinite(scale).all()
    assert np.isfinite(offset).all()
    assert (scale >= 0).all()
    groups = groups_of(w, 32)
    low, high = np.nanmin(groups, axis=-1), np.nanmax(groups, axis=-1)
    error = np.sqrt(np.nanmean(groups_of(dequantize_int4(q, scale, offset) - w, 32) ** 2, axis=-1))
    step = (high - low) * 1.04 / 15
    assert (error <= step * (0.5 + 15 * HALF) + (np.abs(low) + step) * HALF + 16 * TINY).all()


def test_searched_int4_beats_the_whole_range():
    w = np.random.default_rng(0).standard_normal((64, 320), np.float32)
    groups = w.reshape(64, -1, 32)
    low = groups.min(axis=-1, keepdims=True)
    step = (groups.max(axis=-1, keepdims=True) - low) / 15
    plain = ((np.rint((groups - low) / step) * step + low - groups) ** 2).mean()
    assert ((dequantize_int4(*quantize_int4(w)) - w) ** 2).mean() < 0.82 * plain


def test_importance_moves_the_error_to_where_it_counts_less():
    rng = np.random.default_rng(1)
    w, importance = rng.standard_normal((64, 96), np.float32), rng.lognormal(0, 2, 96).astype(np.float32)
    squares = [((dequantize_int4(*quantize_int4(w, each)) - w) ** 2).mean(axis=0) for each in (None, importance)]
    assert squares[1] @ importance < 0.6 * squares[0] @ importance
    assert squares[1].mean() > squares[0].mean()
    flat = quantize_int4(w, np.full(96, 7, np.float32))
    assert all(np.array_equal(a, b) for a, b in zip(flat, quantize_int4(w), strict=True))
    assert np.isfinite(dequantize_int4(*quantize_int4(w, np.zeros(96, np.float32)))).all()


@given(matrices(), st.data())
@settings(max_examples=30, deadline=None)
def test_pieces_are_the_whole(w, data):
    start = data.draw(st.integers(0, len(w) - 1))
    rows = slice(start, data.draw(st.integers(start + 1, len(w))))
    for quantized in (quantize_int8, quantize_int4):
        for part, whole in zip(quantized(w[rows]), quantized(w), strict=True):
            np.testing.assert_array_equal(part, whole[rows])


def test_pieces_of_a_large_matrix_are_the_whole():
    w = np.random.default_rng(2).standard_normal((401, 768), np.float32)
    for quantized in (quantize_int8, quantize_int4):
        parts = [quantized(w[start : start + 57]) for start in range(0, len(w), 57)]
        for part, whole in zip(zip(*parts, strict=True), quantized(w), strict=True):
            np.testing.assert_array_equal(np.concatenate(part), whole)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_out", "n_in"), [(1, 1), (16, 64), (33, 41), (61, 200), (96, 128)])
def test_panels_lie_as_the_native_file_wants_them(dtype, n_out, n_in):
    w = np.random.default_rng(n_in).standard_normal((n_out, n_in), np.float32)
    arrays = packing.encode(w, dtype)
    kinds = {"F32": np.float32, "F16": np.float16, "U8": np.uint8}
    expected = [(kinds[kind], shape) for kind, shape in weights.matrix_shapes("w", dtype, n_in, n_out).values()]
    assert [(array.dtype, array.shape) for array in arrays] == expected
    assert all(array.flags.c_contiguous for array in arrays)


@pytest.mark.parametrize(("n_out", "n_in"), [(1, 1), (33, 41), (61, 200)])
def test_every_weight_is_where_the_reference_looks(n_out, n_in):
    w = np.random.default_rng(n_out).standard_normal((n_out, n_in), np.float32)
    o, k = np.indices((n_out, n_in))
    np.testing.assert_array_equal(packing.encode(w, "float32")[0][reference.place_float(o, k)], w)
    np.testing.assert_array_equal(packing.encode(w, "float16")[0][reference.place_float(o, k)], w.astype(np.float16))

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


@pytest.mark.parametrize(("dtype", "fits", "beyond"), [("float16", 6e4, 7e4), ("int8", 8e6, 9e6), ("int4", 3e4, 4e4)])
def test_weights_too_large_are_refused(dtype, fits, beyond):
    w = np.linspace(-1, 1, 64, dtype=np.float32)[None]
    decoded = packing.decode(packing.encode(w * np.float32(fits), dtype), dtype, 1, 64)
    np.testing.assert_allclose(decoded / fits, w, atol=0.04)
    with pytest.raises(ValueError, match=f"weights reach .*{dtype} holds"):
        packing.encode(w * np.float32(beyond), dtype)


def layer_norm_and_reader(n_in=100, n_out=90):
    rng = np.random.default_rng(3)
    gain, bias = rng.lognormal(0, 1, n_in).astype(np.float32), rng.standard_normal(n_in, np.float32)
    return gain, bias, rng.standard_normal((n_out, n_in), np.float32) * rng.lognormal(0, 1, n_in).astype(np.float32)


def test_equalized_channels_are_as_large_in_weights_as_in_activations():
    gain, bias, w = layer_norm_and_reader()
    scale = equalize(gain, bias, w)
    assert scale.dtype == np.float32
    activations, rows = np.hypot(gain, bias) * scale, np.sqrt((w**2).mean(axis=0)) / scale
    np.testing.assert_allclose(activations, rows, rtol=1e-5)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(-12, 12)), max_size=9))
@settings(max_examples=30, deadline=None)
def test_equalizing_forgets_how_layer_norm_and_reader_shared_a_size(shifts):
    gain, bias, w = layer_norm_and_reader()
    factor = np.ones(100, np.float32)
    for channel, exponent in shifts:
        factor[channel] = 2.0**exponent
    scale, rescaled = equalize(gain, bias, w), equalize(gain * factor, bias * factor, w / factor)
    np.testing.assert_array_equal(gain * factor * rescaled, gain * scale)
    np.testing.assert_array_equal(w / factor / rescaled, w / scale)


def test_equalizing_leaves_idle_channels_harmless():
    gain, bias, w = layer_norm_and_reader()
    gain[:2] = bias[:2] = 0  # nothing comes in
    w[:, 1:3] = 0  # nothing reads
    scale = equalize(gain, bias, w)
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    rows, activations = np.abs(w / scale).mean(axis=0), np.hypot(gain, bias) * scale
    assert rows[0] <= rows[3:].max()
    assert activations[2] <= activations[3:].max()
    nothing = np.zeros(100, np.float32)
    assert (equalize(nothing, nothing, w) == 1).all()


def test_equalizing_reads_float16():
    gain, bias, w = layer_norm_and_reader()
    half = w.astype(np.float16)
    np.testing.assert_array_equal(equalize(gain, bias, half), equalize(gain, bias, half.astype(np.float32)))


@pytest.mark.parametrize("n", [1, 32, 33])
def test_vectors_are_padded_to_pairs_of_panels(n):
    padded = packing.pad_vector(np.ones(n, np.float16))
    assert padded.dtype == np.float32
    assert len(padded) == reference.padded(n, reference.TILE)
    assert padded.sum() == n
