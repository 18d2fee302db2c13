"""Data of the panel on ablation: what the model says after the last token if a part is off."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...engine.engine import Engine
from ...tokenizer import Tokenizer
from ..ablation import Predictions, ablate_each, flop_of_all
from ..trace import Trace
from .packed import pack, pack_floats

MAX_FLOP = 1e12
"""What it may cost to switch off every part in advance: some ten seconds of two cores."""


def switched_off(engine: Engine, tokenizer: Tokenizer, trace: Trace, max_flop: float = MAX_FLOP) -> Predictions | None:
    """Predictions with each part off by itself; None if that would cost more floating-point operations."""
    if flop_of_all(trace.config, len(trace.ids)) > max_flop:
        return None
    return ablate_each(engine, tokenizer, trace)


def switches_data(ablations: Predictions | None) -> dict[str, Any] | None:
    """Predictions [n_parts, k] for the page."""
    if ablations is None:
        return None
    return {
        "ids": pack(ablations.ids),
        "probabilities": pack_floats(ablations.probabilities),
        "divergence": pack_floats(np.maximum(ablations.divergence, 0)),  # rounding makes some a little less
    }
