"""A page that shows what a model does to a text: one file for a browser, with everything in it."""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .trace import Trace

_ACTIVATION_NAMES = {"relu": "ReLU", "silu": "SiLU", "tanh": "tanh", "quick_gelu": "quick GELU"}
MAX_TOKENS = 256
"""The longest text of a page: attention is the square of it, for each head."""


def page(trace: Trace, model: str = "GPT-2") -> str:
    """HTML of a trace, without references to anything outside; about 0.7 bytes for a cell of attention.

    Raises ValueError for more than MAX_TOKENS tokens, and for a trace with numbers that are not finite.
    """
    check_length(len(trace.ids))
    parts = {
        "model": html.escape(model),
        "activation": _ACTIVATION_NAMES.get(trace.config.activation, "GELU"),
        "style": _read("explain.css"),
        "script": _read("explain_charts.js") + _read("explain.js"),
        "trace": _json(trace, model),
    }
    put_in = re.compile(r"\{\{(\w+)\}\}").sub  # once: what has been put in is not read again
    return put_in(lambda place: parts[place[1]], _read("explain.html"))


def check_length(n_tokens: int) -> None:
    """Raise ValueError for a text that is too long for a page."""
    if n_tokens > MAX_TOKENS:
        raise ValueError(f"the text has {n_tokens} tokens; a page shows at most {MAX_TOKENS}: shorten it")


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _json(trace: Trace, model: str) -> str:
    """What explain.js reads, in characters that mean nothing to HTML."""
    config = trace.config
    n_layer, n_head, n, _ = trace.attention.shape
    names = ("norms", "added", "mean_before", "variance_before", "mean_after", "variance_after", "lens_probabilities")
    numbers = {name: getattr(trace, name) for name in names}
    if not all(np.isfinite(array).all() for array in (trace.attention, *numbers.values())):
        raise ValueError("the model's numbers overflow on this text; there is nothing to show")
    i, j = np.tril_indices(n)
    past = trace.attention[:, :, i, j]  # [n_layer, n_head, n (n + 1) / 2]
    data = {
        "model": model,
        **{"n_layer": n_layer, "n_head": n_head, "n_embd": config.n_embd, "n_inner": config.n_inner},
        "ids": trace.ids.tolist(),
        "texts": trace.texts,
        "attention": b64encode(np.rint(255 * past).astype(np.uint8).tobytes()).decode(),
        "lens_ids": trace.lens_ids.tolist(),
        **{name: _rounded(array.tolist()) for name, array in numbers.items()},
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _rounded(numbers: float | list) -> float | list:  # type: ignore[type-arg]
    """To four digits."""
    return [_rounded(number) for number in numbers] if isinstance(numbers, list) else float(f"{numbers:.4g}")
