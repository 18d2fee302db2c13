"""Perplexity of a text, by llama.cpp's protocol or with a strided window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..engine.engine import Engine
from ..tokenizer import Tokenizer

Protocol = Literal["llama.cpp", "strided"]
_PROTOCOLS = get_args(Protocol)


@dataclass(frozen=True)
class Perplexity:
    """The exponential of the mean negative log-likelihood (NLL) of the scored tokens."""

    protocol: str
    window: int  # tokens that are read from an empty context
    stride: int  # tokens between the starts of windows
    n_scored: int
    nll: float  # nats a token
    perplexity: float
    standard_error: float  # of the perplexity, if tokens were independent
    bits_per_byte: float | None  # of the scored tokens' UTF-8, comparable between tokenizers; None without one


def windows(n_tokens: int, protocol: Protocol, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """The windows of a text.

    Args:
        n_tokens: length of the text.
        protocol: "llama.cpp": windows do not overlap, and the second half of each is scored (examples/perplexity);
            "strided": each window scores the tokens that no earlier one scored (Hugging Face, "Perplexity of
            fixed-length models").
        window: tokens of a window.
        stride: tokens between the starts of windows, strided only.

    Yields:
        (start, stop, first): read tokens start to stop - 1 and score those from `first` on; positions in the text.
    """
    if protocol == "llama.cpp":
        for start in range(0, n_tokens - window + 1, window):
            yield start, start + window, start + window // 2 + 1
        return
    scored = 0
    for start in range(0, n_tokens, stride):
        stop = min(start + window, n_tokens)
        first = max(scored, start + 1)  # nothing predicts the first token of a window
        if first < stop:
            yield start, stop, first
        scored = stop
        if stop == n_tokens:
            return


def perplexity(
    engine: Engine,
    ids: list[int],
    protocol: Protocol = "llama.cpp",
    window: int | None = None,
    stride: int | None = None,
    bos_id: int | None = None,
    tokenizer: Tokenizer | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Perplexity:
    """Perplexity of a text.

    Args:
        engine: runs the model.
        ids: token ids of the text.
        protocol: see `windows`.
        window: tokens of a window; None: the model's context.
        stride: tokens between the starts of windows, strided only; None: half a window.
        bos_id: replaces the first token of each window, as llama.cpp does for models that begin texts with BOS.
        tokenizer: spells the scored tokens, for `bits_per_byte`.
        progress: called with the number of windows done and the number of windows.

    Returns:
        The perplexity and what it was computed from.

    Raises:
        ValueError: the text is shorter than a window (llama.cpp) or than two tokens, or a size is out of range.
    """
    window, stride = _sizes(engine.config.n_ctx, len(ids), protocol, window, stride)
    parts, n_bytes = [], 0
    spans = list(windows(len(ids), protocol, window, stride))
    for start, stop, first in spans:
        part = ids[start:stop]
        if bos_id is not None:
            part = [bos_id, *part[1:]]
        parts.append(engine.nll(part, first - start))
        n_bytes += len(tokenizer.decode_bytes(ids[first:stop])) if tokenizer else 0
        progress(len(parts), len(spans))
    nll = np.concatenate(parts)
    mean = float(nll.mean())
    error = float(nll.std()) / math.sqrt(max(1, len(nll) - 1))
    with np.errstate(over="ignore"):
        result = float(np.exp(mean))
    bits = float(nll.sum()) / math.log(2) / n_bytes if n_bytes else None
    return Perplexity(protocol, window, stride, len(nll), mean, result, result * error, bits)


def _sizes(n_ctx: int, n_tokens: int, protocol: Protocol, window: int | None, stride: int | None) -> tuple[int, int]:
    """Window and stride, defaults filled in. Raises ValueError as `perplexity` does."""
    if protocol not in _PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}; choose one of {', '.join(_PROTOCOLS)}")
    window = n_ctx if window is None else window
    if not 4 <= window <= n_ctx:
        raise ValueError(f"window is {window}; it must be from 4 to {n_ctx}, the context of this model")
    if protocol == "llama.cpp" and stride not in (None, window):
        raise ValueError(f"stride is {stride}; protocol llama.cpp has none: leave it out or choose protocol strided")
    stride = window if protocol == "llama.cpp" else window // 2 if stride is None else stride
    if not 1 <= stride <= window:
        raise ValueError(f"stride is {stride}; it must be from 1 to {window}, the window")
    needed = window if protocol == "llama.cpp" else 2
    if n_tokens < needed:
        raise ValueError(
            f"the text has {n_tokens} tokens; this needs at least {needed}: choose a longer one or a smaller window"
        )
    return window, stride
