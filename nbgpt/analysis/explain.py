"""The explain page: a trace as one HTML file with its style, script and data."""

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

MAX_TOKENS = 256
"""Longest text of a page, which holds the square of it in attention weights for each head."""


def page(trace: Trace, model: str = "GPT-2") -> str:
    """HTML of a trace, without references to other files; about 0.7 bytes for each attention weight.

    Args:
        trace: of at most MAX_TOKENS tokens.
        model: the model's name, as the page shows it.

    Returns:
        The page.

    Raises:
        ValueError: the trace has more tokens, or numbers that are not finite.
    """
    check_length(len(trace.ids))
    parts = {
        "model": html.escape(model),
        "activation": trace.config.activation,
        "style": _read("explain.css"),
        "script": _read("explain_charts.js") + _read("explain.js"),
        "trace": _json(trace, model),
    }
    put_in = re.compile(r"\{\{(\w+)\}\}").sub  # in one pass, so that braces in inserted text stay
    return put_in(lambda place: parts[place[1]], _read("explain.html"))


def check_length(n_tokens: int) -> None:
    """Raise ValueError if a text is too long for a page."""
    if n_tokens > MAX_TOKENS:
        raise ValueError(f"the text has {n_tokens} tokens; a page shows at most {MAX_TOKENS}: shorten it")


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _json(trace: Trace, model: str) -> str:
    """The data for explain.js as JSON that is safe inside a script element."""
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
    """The numbers of nested lists, rounded to four significant digits."""
    return [_rounded(number) for number in numbers] if isinstance(numbers, list) else float(f"{numbers:.4g}")
