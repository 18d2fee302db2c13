"""The page put together: a trace as one HTML file."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from ..ablation import Predictions
from ..trace import Trace
from .heads import heads_data
from .predictions import predictions_data
from .stream import stream_data
from .switches import switches_data

MAX_TOKENS = 1024
"""Longest text of a page."""
_SCRIPTS = ["data", "parts", "charts", "matrix", "heads", "products", "stream", "way", "predictions", "switches"]


def page(trace: Trace, model: str = "GPT-2", ablations: Predictions | None = None, *, live: bool = False) -> str:
    """HTML of a trace, without references to other files; below 10 MB.

    Args:
        trace: of at most MAX_TOKENS tokens.
        model: the model's name, as the page shows it.
        ablations: what `switched_off` returned.
        live: the page is shown by `explain --serve`, and asks it for what is not in the file.

    Returns:
        The page.

    Raises:
        ValueError: the trace has more tokens, or numbers that are not finite.
    """
    check_length(len(trace.ids))
    parts = {
        "model": html.escape(model),
        "activation": trace.config.activation,
        "connect": "; connect-src 'self'" if live else "",
        "style": _read("style.css"),
        "script": "".join(_read(f"{name}.js") for name in (*_SCRIPTS, *["live"] * live, "main")),
        "trace": _json(trace, model, ablations),
    }
    put_in = re.compile(r"\{\{(\w+)\}\}").sub  # in one pass, so that braces in inserted text stay
    return put_in(lambda place: parts[place[1]], _read("page.html"))


def check_length(n_tokens: int) -> None:
    """Raise ValueError if a text is too long for a page."""
    if n_tokens > MAX_TOKENS:
        raise ValueError(f"the text has {n_tokens} tokens; a page shows at most {MAX_TOKENS}: shorten it")


def _read(name: str) -> str:
    return (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8")


def _json(trace: Trace, model: str, ablations: Predictions | None) -> str:
    """The data for the scripts as JSON that is safe inside a script element."""
    config = trace.config
    texts = {**trace.texts, **(ablations.texts if ablations else {})}
    data: dict[str, Any] = {
        "model": model,
        **{name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd", "n_inner", "head_dim")},
        "epsilon": config.layer_norm_epsilon,
        "ids": trace.ids.tolist(),
        "texts": texts,
        **heads_data(trace),
        **predictions_data(trace),
        **stream_data(trace),
        "switches": switches_data(ablations),
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
