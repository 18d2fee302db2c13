"""A trace in a notebook: the text shaded by surprise and the likeliest next tokens, as HTML without a script.

Notebooks remove scripts from output that they do not trust, so this is no explain page.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

_BITS = 12.0
"""Surprise, in bits, of the darkest shade."""


def summary(
    tokens: Sequence[str], surprisal: np.ndarray, ranks: np.ndarray, following: Sequence[tuple[str, float]]
) -> str:
    """HTML of a text and of what follows it.

    Args:
        tokens: the text of each token.
        surprisal: bits, float [n]; NaN for a token that nothing predicts.
        ranks: place of each token among the predictions, from 1 on, int [n]; 0 if there is none.
        following: likeliest next tokens with their probabilities.
    """
    spans = (_token(*one) for one in zip(tokens, surprisal.tolist(), ranks.tolist(), strict=True))
    rows = (
        f"<tr><td style='text-align:right'>{probability:.1%}</td><td style='text-align:left'>"
        f"<code>{_escaped(text)}</code></td></tr>"
        for text, probability in following
    )
    bits = surprisal[np.isfinite(surprisal)]
    mean = f"; {bits.mean():.2f} bits a token" if len(bits) else ""
    return (
        f"<div style='line-height:1.8'>{''.join(spans)}</div>"
        f"<small>{len(tokens)} token{'s' * (len(tokens) != 1)}{mean}; the darker, the more surprising. Next:</small>"
        f"<table>{''.join(rows)}</table>"
    )


def _token(text: str, bits: float, rank: int) -> str:
    if rank == 0:
        return f"<code title='nothing before it'>{_escaped(text)}</code>"
    alpha = min(bits, _BITS) / _BITS * 0.6
    title = f"{bits:.1f} bits, number {rank} of the predictions"
    return f"<code title='{title}' style='background:rgba(214,116,0,{alpha:.2f})'>{_escaped(text)}</code>"


def _escaped(text: str) -> str:
    return html.escape(text.replace("\n", "⏎"))
