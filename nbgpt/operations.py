"""Softmax, its logarithm, sigmoid and LayerNorm in NumPy, for results that no kernel computes."""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(logits) / sum(exp(logits)) along the last axis, in the dtype and shape of logits; -inf becomes 0."""
    probabilities: np.ndarray = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    return probabilities


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log(softmax(logits)) along the last axis, float64 whatever the dtype of logits."""
    shifted: np.ndarray = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)), in the dtype of logits; computed as a hyperbolic tangent, which never overflows."""
    probabilities: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * logits)
    return probabilities


def layer_norm(rows: np.ndarray, gain: np.ndarray, bias: np.ndarray, epsilon: float) -> np.ndarray:
    """LayerNorm of rows [n, n_embd] with gain and bias [n_embd]: float64 [n, n_embd].

    Source: Ba et al. 2016, "Layer Normalization"; epsilon is added to the variance, as in GPT-2.
    """
    centered = rows.astype(np.float64) - rows.mean(axis=1, dtype=np.float64, keepdims=True)
    deviation = np.sqrt((centered**2).mean(axis=1, keepdims=True) + epsilon)
    normed: np.ndarray = centered / deviation * gain + bias
    return normed
