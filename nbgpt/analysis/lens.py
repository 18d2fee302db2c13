"""The logit lens at the end of a text: what each layer would have written next."""

from __future__ import annotations

import numpy as np

from ..engine.engine import Engine
from .passes import attention_part, run_parts


def logit_lens(engine: Engine, ids: list[int]) -> np.ndarray:
    """Logits of the next token, read from the residual stream before each layer and after the last.

    Costs one pass over the text and n_layer + 1 times the logits; `trace` has the same for every position.

    Args:
        engine: runs the model.
        ids: token ids, length n from 1 to n_ctx.

    Returns:
        float32 [n_layer + 1, n_vocab]; row l is the LM head after ln_f, applied to the stream that layer l reads; the
        last row are the model's logits.

    Raises:
        ValueError: there are no ids, or more than n_ctx.
    """
    n_layer, n_ctx = engine.config.n_layer, engine.config.n_ctx
    if not 1 <= len(ids) <= n_ctx:
        raise ValueError(f"the text has {len(ids)} tokens; it must have from 1 to {n_ctx}, this model's context")
    stream = run_parts(engine, ids, (0, 1))["x"]
    lasts = [stream[-1:]]
    for layer in range(n_layer):
        stream = run_parts(engine, ids, (attention_part(layer), attention_part(layer + 1)), stream)["x"]
        lasts.append(stream[-1:])
    head = (attention_part(n_layer), engine.runner.n_parts)
    return np.concatenate([run_parts(engine, ids[-1:], head, last, [0])["logits"] for last in lasts])
