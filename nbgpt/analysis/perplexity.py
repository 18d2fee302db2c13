"""How well a model predicts a text: perplexity by two protocols."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..engine.engine import Engine

Protocol = Literal["llama.cpp", "strided"]
_PROTOCOLS = get_args(Protocol)


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean negative log-likelihood of the tokens that were scored."""

    protocol: str
    window: int  # tokens read at once
    stride: int  # tokens between windows
    n_scored: int
    nll: float  # nats a token
    perplexity: float
    standard_error: float  # of the perplexity, as if tokens were independent


def windows(n_tokens: int, protocol: Protocol, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(start, stop, first): read tokens start..stop and score those from `first` on; positions in the text.

    llama.cpp: windows that do not overlap, the second half of each is scored (examples/perplexity).
    strided: each window scores what the one before has not (Hugging Face, "Perplexity of fixed-length models").
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
    model: Engine,
    ids: list[int],
    protocol: Protocol = "llama.cpp",
    window: int | None = None,
    stride: int | None = None,
    bos_id: int | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Perplexity:
    """Perplexity of a text's ids.

    window: the model's context if None; stride (strided only): half a window if None.
    bos_id: put this in place of the first token of each window, as llama.cpp does for models that want it.
    progress: called with the numbers of windows done and in all.
    Raises ValueError for a text that is shorter than a window (llama.cpp) or than two tokens, and for bad sizes.
    """
    if protocol not in _PROTOCOLS:
        raise ValueError(f"protocol is {protocol!r}; choose one of {', '.join(_PROTOCOLS)}")
    n_ctx = model.config.n_ctx
    window = n_ctx if window is None else window
    if not 4 <= window <= n_ctx:
        raise ValueError(f"window is {window}; it must be from 4 to {n_ctx}, the context of this model")
    if protocol == "llama.cpp" and stride not in (None, window):
        raise ValueError(f"stride is {stride}; protocol llama.cpp has none: leave it out or choose protocol strided")
    stride = window if protocol == "llama.cpp" else window // 2 if stride is None else stride
    if not 1 <= stride <= window:
        raise ValueError(f"stride is {stride}; it must be from 1 to {window}, the window")
    needed = window if protocol == "llama.cpp" else 2
    if len(ids) < needed:
        raise ValueError(
            f"the text has {len(ids)} tokens; this needs at least {needed}: choose a longer one or a smaller window"
        )
    scores, places = [], list(windows(len(ids), protocol, window, stride))
    for start, stop, first in places:
        part = ids[start:stop]
        if bos_id is not None:
            part = [bos_id, *part[1:]]
        scores.append(model.nll(part, first - start))
        progress(len(scores), len(places))
    nll = np.concatenate(scores)
    mean = float(nll.mean())
    error = float(nll.std()) / math.sqrt(max(1, len(nll) - 1))
    with np.errstate(over="ignore"):
        result = float(np.exp(mean))
    return Perplexity(protocol, window, stride, len(nll), mean, result, result * error)
