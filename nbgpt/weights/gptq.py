"""GPTQ: int4 rounding that minimizes the error of a matrix's outputs on given inputs, for `convert --calibrate`.

After Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", in the
form that Chee et al. 2023, "QuIP", section 3.2, show to be the same: with H = X.T @ X and e an output's errors, one at
each input, the squared error of the product is e.T @ H @ e = |R.T @ e|^2, where H = R @ R.T and R is upper triangular.
Entry k of R.T @ e holds the errors of inputs 0..k only. So the weights are rounded input by input, each after a shift
that compensates for the errors of the inputs before it. No inverse is needed.
"""

from __future__ import annotations

import numpy as np

from ..abi.layout import GROUP_INT4
from .quantize import check_int4, fit_int4, round_int4

DAMPING = 0.01
"""Share of the inputs' mean square, added to H's diagonal: keeps H invertible, and limits trust in a short text."""


def quantize_int4(w: np.ndarray, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32 w [n_out, n_in] for inputs with moments X.T @ X [n_in, n_in] -> as `quantize.quantize_int4`.

    Takes n_in^3 / 3 + n_out n_in^2 multiplications, and about 25 n_in^2 + 13 n_out n_in bytes.
    Raises ValueError if weights are not finite or too large, or if no inputs have such moments.
    """
    check_int4(w)
    n_out, n_in = w.shape
    groups = _by_weight(np.diag(moments))
    inputs = np.concatenate(groups)  # in the order in which they are rounded
    feedback, importance = _feedback(moments, inputs)
    weights = np.ascontiguousarray(w[:, inputs].T, np.float32)  # [n_in, n_out]
    errors = np.empty_like(weights)
    q = np.empty((n_out, n_in), np.uint8)
    scale, offset = np.empty((2, n_out, len(groups)), np.float16)
    start = 0
    for group in groups:
        stop = start + len(group)
        own = feedback[start:stop, start:stop]
        pushes = feedback[:start, start:stop].T @ errors[:start]
        best = weights[start:stop] + np.linalg.solve(own.T, pushes)  # what the group would be if it were not rounded
        scales, offsets = fit_int4(np.ascontiguousarray(best.T), importance[start:stop])
        place = group[0] // GROUP_INT4
        scale[:, place], offset[:, place] = scales, offsets
        for k, push in enumerate(pushes, start):
            target = weights[k] + push + own[: k - start, k - start] @ errors[start:k]
            numbers = round_int4(target, scales, offsets)
            q[:, inputs[k]] = numbers
            errors[k] = weights[k] - (numbers * scales + offsets)
        start = stop
    return q, scale, offset


def _by_weight(squares: np.ndarray) -> list[np.ndarray]:
    """The groups of inputs, largest mean square first: the first to be rounded are shifted the least."""
    starts = np.arange(0, len(squares), GROUP_INT4)
    order = np.argsort(-np.add.reduceat(squares, starts), kind="stable")
    return [np.arange(start, min(start + GROUP_INT4, len(squares))) for start in starts[order]]


def _feedback(moments: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For the inputs in the given order: R with its columns divided by its diagonal, and the diagonal's squares.

    float32 [n_in, n_in], column k: how much of each earlier error input k compensates for; float32 [n_in].
    """
    h = moments[np.ix_(inputs, inputs)].astype(np.float32)
    mean_square = np.trace(h) / len(h)
    h[np.diag_indices_from(h)] += DAMPING * mean_square if mean_square > 0 else 1.0
    try:
        r = np.linalg.cholesky(h[::-1, ::-1])[::-1, ::-1]  # Cholesky's factor is lower; seen from the end, upper
    except np.linalg.LinAlgError:
        r = np.full_like(h, np.nan)
    if not np.isfinite(r).all():
        raise ValueError("calibration: a matrix's inputs have impossible second moments; does the model hold NaN?")
    diagonal = np.diag(r)
    return r / diagonal, diagonal * diagonal
