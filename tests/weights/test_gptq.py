import numpy as np
import pytest

from nbgpt.weights import gptq, packing, quantize
from nbgpt.weights.quantize import dequantize_int4, fit_int4


def correlated_inputs(n_in, n_rows=1000, seed=0):
    """Rows with a few common causes and some channels much louder than others, like a GPT-2's."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_rows, 10)) @ rng.standard_normal((10, n_in)) + rng.standard_normal((n_rows, n_in))
    return (x * rng.lognormal(0, 0.7, n_in)).astype(np.float32)


def weights(n_out, n_in, seed=1):
    return np.random.default_rng(seed).standard_normal((n_out, n_in), np.float32)


def error_of_product(x, w, quantized):
    return np.square(x @ (dequantize_int4(*quantized) - w).T).sum()


@pytest.mark.parametrize("n_in", [20, 96, 100, 256])
def test_feedback_beats_rounding(n_in):
    x, w = correlated_inputs(n_in), weights(40, n_in)
    rounded = error_of_product(x, w, quantize.quantize_int4(w, np.square(x).mean(axis=0)))
    assert error_of_product(x, w, gptq.quantize_int4(w, x.T @ x)) < 0.7 * rounded


def test_feedback_carries_over_to_inputs_that_it_has_not_seen():
    x, w = correlated_inputs(128, 4000), weights(40, 128)
    seen, unseen = x[:2000], x[2000:]
    quantized = gptq.quantize_int4(w, seen.T @ seen)
    assert error_of_product(unseen, w, quantized) < 0.7 * error_of_product(unseen, w, quantize.quantize_int4(w))


def test_inputs_that_have_nothing_in_common_leave_rounding():
    w = weights(30, 96)
    quantized = gptq.quantize_int4(w, 5 * np.eye(96, dtype=np.float32))
    for ours, rounded in zip(quantized, quantize.quantize_int4(w), strict=True):
        np.testing.assert_array_equal(ours, rounded)


def textbook_gptq(w, moments, order):
    """Frantar et al. 2022, algorithm 1: after each input, the weights still to come move along H's inverse."""
    w, h = w[:, order].astype(np.float64), moments[np.ix_(order, order)].astype(np.float64)
    n_in = len(h)
    h += gptq.DAMPING * np.trace(h) / n_in * np.eye(n_in)
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    out = np.empty_like(w)
    for k in range(n_in):
        if k % 32 == 0:
            group = np.ascontiguousarray(w[:, k : k + 32], np.float32)
            scale, offset = fit_int4(group, (1 / np.diag(u)[k : k + 32] ** 2).astype(np.float32))
        out[:, k] = quantize.round_int4(w[:, k], scale, offset) * scale + offset
        w[:, k:] -= np.outer((w[:, k] - out[:, k]) / u[k, k], u[k, k:])
    back = np.empty_like(out)
    back[:, order] = out
    return back


def test_it_is_gptq():
    x, w = correlated_inputs(96), weights(50, 96)
    moments = x.T @ x
    loudest_first = np.argsort(-np.diag(moments).reshape(3, 32).sum(axis=1))
    order = np.concatenate([np.arange(32 * group, 32 * group + 32) for group in loudest_first])
    ours, theirs = dequantize_int4(*gptq.quantize_int4(w, moments)), textbook_gptq(w, moments, order)
    differ = np.abs(ours - theirs).max(axis=1) > 1e-4
    assert differ.mean() <= 0.1  # outputs in which float32 tipped a rounding the other way


def test_outputs_do_not_depend_on_each_other():
    x, w = correlated_inputs(100), weights(64, 100)
    whole, part = (dequantize_int4(*gptq.quantize_int4(rows, x.T @ x)) for rows in (w, w[20:50]))
    assert (np.abs(whole[20:50] - part).max(axis=1) > 1e-4).mean() <= 0.1


def test_encode_knows_by_what_inputs_are_scaled():
    x, w = correlated_inputs(64), weights(40, 64)
    scale = np.exp2(np.arange(64) % 7 - 3).astype(np.float32)
    scaled = x * scale
    told = packing.encode(w / scale, "int4", x.T @ x, scale)
    for a, b in zip(told, packing.encode(w / scale, "int4", scaled.T @ scaled), strict=True):
        np.testing.assert_array_equal(a, b)
    squares = np.square(x).mean(axis=0)
    told = packing.encode(w / scale, "int4", squares, scale)
    for a, b in zip(told, packing.pack_int4(*quantize.quantize_int4(w / scale, squares * scale**2)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_silent_inputs_are_rounded():
    w = weights(40, 70)
    quantized = gptq.quantize_int4(w, np.zeros((70, 70), np.float32))
    for ours, rounded in zip(quantized, quantize.quantize_int4(w), strict=True):
        np.testing.assert_array_equal(ours, rounded)
    x = correlated_inputs(70)
    x[:, 10:50] = 0
    assert np.abs(dequantize_int4(*gptq.quantize_int4(w, x.T @ x)) - w).max() < 2


def test_fewer_rows_than_inputs_are_enough():
    x, w = correlated_inputs(256, n_rows=30), weights(40, 256)
    rounded = error_of_product(x, w, quantize.quantize_int4(w))
    assert error_of_product(x, w, gptq.quantize_int4(w, x.T @ x)) < 0.3 * rounded


@pytest.mark.parametrize("moment", [np.nan, np.inf, -1e9])
def test_impossible_moments_are_refused(moment):
    moments = np.eye(64, dtype=np.float32)
    moments[5, 5] = moment
    with pytest.raises(ValueError, match="impossible second moments"):
        gptq.quantize_int4(weights(4, 64), moments)


def test_broken_weights_are_refused():
    w = weights(4, 64)
    w[3, 60] = np.nan
    with pytest.raises(ValueError, match="weights hold nan"):
        gptq.quantize_int4(w, np.eye(64, dtype=np.float32))
