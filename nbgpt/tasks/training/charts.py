"""Pictures of a report as SVG elements; their colours are the page's (report.css)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 24, 12, 44
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """A range of numbers, from `low` at the left or bottom to `high`; the positions of its ticks, and its title."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    is_log: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value lies, from 0 to 1."""
        if self.is_log:
            return float(np.log(value / self.low) / np.log(self.high / self.low)) if self.high > self.low else 0.5
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def unit_axis(title: str, low: float = 0.0) -> Axis:
    """An axis of probabilities or shares up to 1, that begins at a round number below the lowest value."""
    step = next(step for step in (0.05, 0.1, 0.2) if step == 0.2 or (1 - low) / step <= 6)
    first = max(0.0, np.floor(low / step) * step)
    return Axis(title, first, 1.0, np.arange(first, 1 + step / 2, step).round(2).tolist())


def line_chart(name: str, series: Mapping[str, Points], x: Axis, y: Axis, diagonal: bool = False) -> str:
    """Lines with a point for each pair (x, y). diagonal: a dashed line where both axes have the same value."""
    marks = []
    if diagonal:
        marks.append(_line("guide", [(x.low, y.low), (x.high, y.high)], x, y))
    for number, (label, points) in enumerate(series.items(), start=1):
        marks.append(_line(f"series{number}", points, x, y))
        dots = points if len(points) <= 20 else ()
        for at in dots:
            left, top = _place(*at, x, y)
            shown = f"{label}: {at[0]:g}, {at[1]:.3f}"
            marks.append(
                f'<circle class="series{number}" cx="{left}" cy="{top}" r="3"><title>{escape(shown)}</title></circle>'
            )
        if len(series) > 1:
            marks.append(
                f'<text class="legend series{number}" x="{WIDTH - _RIGHT - 6}" '
                f'y="{HEIGHT - _BOTTOM - 8 - 16 * (len(series) - number)}">{escape(label)}</text>'
            )
    return _svg(name, WIDTH, HEIGHT, [*_axes(x, y), *marks])


def _place(x_value: float, y_value: float, x: Axis, y: Axis) -> tuple[float, float]:
    left = _LEFT + x.share(x_value) * (WIDTH - _LEFT - _RIGHT)
    top = HEIGHT - _BOTTOM - y.share(y_value) * (HEIGHT - _TOP - _BOTTOM)
    return round(left, 1), round(top, 1)


def _line(kind: str, points: Points, x: Axis, y: Axis) -> str:
    places = " ".join("{},{}".format(*_place(*point, x, y)) for point in points)
    return f'<polyline class="{kind}" points="{places}"/>'


def _axes(x: Axis, y: Axis) -> list[str]:
    bottom, middle = HEIGHT - _BOTTOM, (HEIGHT - _BOTTOM + _TOP) / 2
    parts = []
    for tick in y.ticks:
        top = _place(x.low, tick, x, y)[1]
        parts.append(f'<path class="grid" d="M{_LEFT} {top}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="tick y" x="{_LEFT - 6}" y="{top + 4}">{tick:g}</text>')
    for tick in x.ticks:
        left = _place(tick, y.low, x, y)[0]
        parts.append(f'<text class="tick x" x="{left}" y="{bottom + 16}">{tick:g}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {bottom}H{WIDTH - _RIGHT}"/>')
    parts.append(f'<text class="title" x="{(WIDTH + _LEFT) / 2}" y="{HEIGHT - 6}">{escape(x.title)}</text>')
    parts.append(f'<text class="title" transform="translate(12 {middle}) rotate(-90)">{escape(y.title)}</text>')
    return parts


def matrix_chart(name: str, labels: Sequence[str], counts: np.ndarray) -> str:
    """A confusion matrix: a cell for each pair (label, prediction), the darker the larger its share of the row."""
    n, cell = len(labels), max(24, min(72, 360 // len(labels)))
    left, top = 110, 40
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = [f'<text class="title" x="{left + n * cell / 2}" y="14">predicted</text>']
    for row, label in enumerate(labels):
        middle = cell * row + cell / 2
        short = escape(label if len(label) <= 14 else label[:13] + "…")
        parts.append(f'<text class="tick y" x="{left - 6}" y="{top + middle + 4}">{short}</text>')
        side = (
            f'x="{left + middle}" y="{top - 8}"'
            if n <= 4
            else f'transform="translate({left + middle + 4} {top - 6}) rotate(-40)"'
        )
        parts.append(f'<text class="tick {"x" if n <= 4 else "slant"}" {side}>{short}</text>')
        for column, count in enumerate(counts[row].tolist()):
            x, y, share = left + cell * column, top + cell * row, shares[row, column]
            shown = f"{label} as {labels[column]}: {count}, {share:.1%}"
            parts.append(
                f'<rect class="cell" x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill-opacity="{share:.3f}">'
                f"<title>{escape(shown)}</title></rect>"
            )
            ink = "on" if share > 0.5 else "off"
            parts.append(f'<text class="count {ink}" x="{x + cell / 2}" y="{y + cell / 2 + 4}">{count}</text>')
    return _svg(name, left + n * cell + 60, top + n * cell + 6, parts)


def _svg(name: str, width: float, height: float, parts: Sequence[str]) -> str:
    title = escape(name)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{title}">'
        f"{''.join(parts)}</svg>"
    )
