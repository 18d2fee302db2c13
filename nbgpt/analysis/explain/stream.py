"""Data of the panels on the residual stream: its length, its LayerNorms, and one token's way through the layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..trace import STATISTICS, Trace
from .packed import pack, pack_floats

N_CHANNELS = 48
"""Channels of the stream that the page shows of a token."""
_N_NEURONS = 6
_NUMBERS = 150_000
"""Numbers of the stream at most."""


def stream_data(trace: Trace) -> dict[str, Any]:
    """Statistics of every point of the stream, and the way of the last tokens, as many as there is room for."""
    n_points, n, _ = trace.stream.shape
    channels = shown_channels(trace)
    first = max(0, n - max(1, _NUMBERS // (n_points * len(channels))))
    return {
        **{name: pack_floats(getattr(trace, name)) for name in STATISTICS},
        "way": {
            "first": first,
            "channels": channels.tolist(),
            "stream": pack_floats(trace.stream[:, first:, channels]),
            "gains": pack_floats(_parameters(trace, "weight")[:, channels]),
            "shifts": pack_floats(_parameters(trace, "bias")[:, channels]),
            "head_norms": pack_floats(_head_norms(trace, first)),
            **_neurons(trace, first),
        },
    }


def shown_channels(trace: Trace) -> np.ndarray:
    """Channels at even distances, one of which gives its place to the largest of all: int64, ascending."""
    n_embd = trace.config.n_embd
    even = np.unique(np.linspace(0, n_embd - 1, min(N_CHANNELS, n_embd)).round().astype(np.int64))
    largest = int(np.abs(trace.stream[-1]).mean(axis=0).argmax())
    even[np.abs(even - largest).argmin()] = largest
    return np.unique(even)


def _parameters(trace: Trace, kind: str) -> np.ndarray:
    """Gains or biases of the LayerNorms that read each point, float32 [2 n_layer + 1, n_embd]."""
    names = [f"h.{layer}.{norm}" for layer in range(trace.config.n_layer) for norm in ("ln_1", "ln_2")]
    return np.array([trace.weights.floats(f"{name}.{kind}")[: trace.config.n_embd] for name in (*names, "ln_f")])


def _head_norms(trace: Trace, first: int) -> np.ndarray:
    """Euclidean norm of what each head adds, float32 [n_layer, n_head, n - first]."""
    layers = range(trace.config.n_layer)
    return np.array([np.linalg.norm(trace.head_outputs(layer)[:, first:], axis=-1) for layer in layers])


def _neurons(trace: Trace, first: int) -> dict[str, Any]:
    """Share of the MLP's channels that are above zero, and the largest: [n_layer, n - first] and [..., k]."""
    activations = trace.activations[:, first:]
    k = min(_N_NEURONS, activations.shape[-1])
    largest = np.argpartition(-activations, k - 1, axis=-1)[..., :k]
    values = np.take_along_axis(activations, largest, axis=-1)
    order = np.argsort(-values, axis=-1, kind="stable")
    return {
        "active": pack_floats((activations > 0).mean(axis=-1)),
        "neurons": pack(np.take_along_axis(largest, order, axis=-1).astype(np.int32)),
        "neuron_values": pack_floats(np.take_along_axis(values, order, axis=-1)),
    }
