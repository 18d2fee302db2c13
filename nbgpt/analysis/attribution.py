"""Direct logit attribution: what each part of the model adds to a token's logit.

The final residual stream is the sum of what the embedding, the heads and the MLPs have added. A logit is the dot
product of a row of the LM head with ln_f of that sum. With the mean and the standard deviation that ln_f has found at
this position held fixed, ln_f is linear, and each part has its share of the logit.

Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Wang et al. 2022, "Interpretability in
the Wild".
"""

from __future__ import annotations

import numpy as np

from ..weights.matrices import block_matrix, head_rows, mean_head_row
from .trace import Trace


def part_names(n_layer: int, n_head: int) -> list[str]:
    """Names of the parts, in the order of the last axis of what `attribute` returns."""
    layers = (
        f"layer {layer}, {part}"
        for layer in range(n_layer)
        for part in (*(f"head {head}" for head in range(n_head)), "MLP")
    )
    return ["embedding", *layers, "biases", "rounding"]


def attribute(trace: Trace, positions: np.ndarray, ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Shares of the parts in logits: float64 [m, c, n_parts], whose sum over the parts is the logit.

    Args:
        trace: of a text.
        positions: after which tokens, int [m].
        ids: whose logits, int [m, c].
        logits: the model's, float [m, c].

    Returns:
        Parts in the order of `part_names`. A head is what its values add by way of attn.c_proj, an MLP includes its
        bias. "biases" are those of attn.c_proj and of ln_f. "rounding" is what is left: about 0 with float32, and with
        quantized weights what the kernels round activations by.
    """
    rows = head_rows(trace.weights, ids.ravel()).reshape(*ids.shape, -1).astype(np.float64)
    return _shares(trace, positions, rows, logits)


def attribute_mean(trace: Trace, positions: np.ndarray) -> np.ndarray:
    """Shares of the parts in the mean of all logits, to compare a token's with: float64 [m, n_parts]."""
    rows = np.tile(mean_head_row(trace.weights), (len(positions), 1, 1))
    return _shares(trace, positions, rows, None)[:, 0]


def _shares(trace: Trace, positions: np.ndarray, rows: np.ndarray, logits: np.ndarray | None) -> np.ndarray:
    """Shares in the dot products of ln_f's output with rows [m, c, n_embd]; no logits: nothing is rounded."""
    directions, constant = _through_ln_f(trace, positions, rows)
    points = trace.stream[:, positions].astype(np.float64)
    shares = [np.einsum("me,mce->mc", points[0], directions)]
    for layer in range(trace.config.n_layer):
        mixed = directions @ block_matrix(trace.weights, layer, "attn.c_proj").T.astype(np.float64)
        mixed = mixed.reshape(*rows.shape[:2], trace.config.n_head, -1)
        shares += list(np.einsum("hmd,mchd->hmc", trace.attended[layer][:, positions], mixed))
        shares.append(np.einsum("me,mce->mc", points[2 * layer + 2] - points[2 * layer + 1], directions))
        constant += directions @ trace.weights.floats(f"h.{layer}.attn.c_proj.bias")[: trace.config.n_embd]
    shares.append(constant)
    shares.append(np.zeros_like(constant) if logits is None else logits - np.sum(shares, axis=0))
    return np.stack(shares, axis=-1)


def _through_ln_f(trace: Trace, positions: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions [m, c, n_embd] whose dot product with a part of the stream is its share, and ln_f's bias's [m, c]."""
    gain, bias = (trace.weights.floats(f"ln_f.{name}")[: trace.config.n_embd] for name in ("weight", "bias"))
    deviation = np.sqrt(trace.stream[-1][positions].var(axis=1, dtype=np.float64) + trace.config.layer_norm_epsilon)
    directions = rows * gain
    directions -= directions.mean(axis=-1, keepdims=True)  # as ln_f takes the mean of each part away
    return directions / deviation[:, None, None], rows @ bias.astype(np.float64)
