"""Two pictures in one SVG file: loss by position in the context, and calibration of the next-token probabilities.

The colours are those of the explain page; a dark page gets the dark ones.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .curves import Curves

_STYLE = """\
svg { --paper: #fdfdfc; --ink: #1b1c1f; --muted: #585d66; --rule: #d5d8dd; --blue: #1f62c9; --orange: #b34a00; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #141519; --ink: #e9eaec; --muted: #a4a9b3; --rule: #3a3d45; --blue: #7db0ff; --orange: #ffa45c; }
}
text { fill: var(--muted); font: 12px system-ui, sans-serif; }
.title { fill: var(--ink); font-size: 14px; }
.paper { fill: var(--paper); }
.grid { stroke: var(--rule); }
.perfect { stroke: var(--muted); stroke-dasharray: 4 4; }
.line { fill: none; stroke: var(--blue); stroke-width: 2; }
.error { stroke: var(--blue); }
.dot { fill: var(--blue); }
.mark { fill: var(--orange); }
"""
_WIDTH, _HEIGHT = 480, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 48, 52
Point = tuple[float, float]


@dataclass(frozen=True)
class _Panel:
    """A picture with axes: what numbers its edges stand for, and where its left edge is."""

    left: float
    x_range: Point
    y_range: Point

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def axes(
        self, title: str, x_title: str, y_title: str, x_ticks: Iterable[tuple[float, str]], y_ticks: Iterable[float]
    ) -> str:
        """Grid, numbers and titles; x_ticks are values with their texts."""
        middle = self.left + (_LEFT + _WIDTH - _RIGHT) / 2
        parts = [
            _text(middle, 24, title, "title"),
            _text(middle, _HEIGHT - 12, x_title),
            f'<text transform="translate({self.left + 16:.1f} {(_TOP + _HEIGHT - _BOTTOM) / 2:.1f}) rotate(-90)" '
            f'text-anchor="middle">{html.escape(y_title)}</text>',
        ]
        for value, label in x_ticks:
            parts.append(self.line((value, self.y_range[0]), (value, self.y_range[1]), "grid"))
            parts.append(_text(self.x(value), _HEIGHT - _BOTTOM + 18, label))
        for value in y_ticks:
            parts.append(self.line((self.x_range[0], value), (self.x_range[1], value), "grid"))
            parts.append(_text(self.left + _LEFT - 8, self.y(value) + 4, f"{value:g}", anchor="end"))
        return "".join(parts)

    def line(self, start: Point, end: Point, kind: str) -> str:
        (x1, y1), (x2, y2) = start, end
        places = f'x1="{self.x(x1):.1f}" y1="{self.y(y1):.1f}" x2="{self.x(x2):.1f}" y2="{self.y(y2):.1f}"'
        return f'<line class="{kind}" {places}/>\n'

    def curve(self, points: Sequence[Point], errors: Sequence[float]) -> str:
        """A line through points, with a dot and a standard error at each."""
        low, high = self.y_range
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        bars = [
            self.line((x, max(low, y - error)), (x, min(high, y + error)), "error")
            for (x, y), error in zip(points, errors, strict=True)
            if math.isfinite(error)
        ]
        return f'<polyline class="line" points="{path}"/>\n' + "".join(bars) + self.dots(points, "dot")

    def dots(self, points: Sequence[Point], kind: str) -> str:
        return "".join(f'<circle class="{kind}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3"/>\n' for x, y in points)


def svg(curves: Curves, model: str) -> str:
    """The pictures as one file without references to others.

    Args:
        curves: what to draw.
        model: the model's name and dtype, as the title shows them.

    Returns:
        SVG; the same text for the same numbers.
    """
    width = 2 * _WIDTH
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" width="{width}" height="{_HEIGHT}" '
        f'role="img" aria-label="{html.escape(model)}: loss by position, calibration">\n'
        f'<style>\n{_STYLE}</style>\n<rect class="paper" width="{width}" height="{_HEIGHT}"/>\n'
        f"{_loss(curves, model)}{_calibration(curves)}</svg>\n"
    )


def _loss(curves: Curves, model: str) -> str:
    """Mean NLL by the number of tokens before, on a logarithmic axis."""
    middles = [math.log2((low + high - 1) / 2) for low, high in pairwise(curves.positions)]
    values = [one.value for one in curves.nll]
    errors = [one.standard_error for one in curves.nll]
    low, high, step = _scale(min(values), max(values))
    most = math.ceil(math.log2(max(2, int(curves.positions[-1]) - 1)))
    panel = _Panel(0, (0, most), (low, high))
    ticks = [(exponent, f"{2**exponent}") for exponent in range(most + 1)]
    lines = [low + step * i for i in range(round((high - low) / step) + 1)]
    title = f"{model}: loss by position, {curves.n_scored} tokens"
    return panel.axes(title, "tokens before", "NLL, nats a token", ticks, lines) + panel.curve(
        list(zip(middles, values, strict=True)), errors
    )


def _calibration(curves: Curves) -> str:
    """How often tokens came that the model gave some probability, beside that probability."""
    panel = _Panel(_WIDTH, (0, 1), (0, 1))
    used = curves.counts > 0
    stated, happened = curves.stated[used], curves.happened[used]
    errors = np.sqrt(happened * (1 - happened) / curves.counts[used])
    fifths = [i / 5 for i in range(6)]
    confidence, accuracy = curves.confidence.value, curves.accuracy.value
    return (
        panel.axes(
            f"calibration; the likeliest token: {confidence:.3f} stated, {accuracy:.3f} came",
            "probability that the model states",
            "share of such tokens that came",
            [(value, f"{value:g}") for value in fifths],
            fifths,
        )
        + panel.line((0, 0), (1, 1), "perfect")
        + panel.curve(list(zip(stated.tolist(), happened.tolist(), strict=True)), errors.tolist())
        + panel.dots([(confidence, accuracy)], "mark")
    )


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """Round ends of an axis that has these values, and the step of its four to ten ticks."""
    span = max(high - low, 1e-3)
    power = 10 ** math.floor(math.log10(span))
    step = next(power * factor for factor in (0.1, 0.2, 0.5, 1, 2, 5) if span / (power * factor) <= 8)
    return step * math.floor(low / step), step * math.floor(high / step + 1), step


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text{of_kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>\n'
