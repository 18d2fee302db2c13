import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import matrices

from nbgpt.abi.layout import HEAD_DTYPE
from nbgpt.weights.quantize import dequantize_int4, dequantize_int8, equalize, quantize_int4, quantize_int8

TINY = 2.0**-24  # the least that float16 holds
HALF = 2.0**-11  # how precisely it holds others
DTYPES = tuple(HEAD_DTYPE)


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
