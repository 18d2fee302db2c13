"""Panels of lines over logarithmic x axes as one SVG file without references to others."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

STYLE = """\
svg { --paper: #fdfdfc; --ink: #1b1c1f; --muted: #585d66; --rule: #d5d8dd;
  --c0: #1f62c9; --c1: #b34a00; --c2: #1a7f4b; --c3: #7d3fb5; --c4: #585d66; }
@media (prefers-color-scheme: dark) {
  svg { --paper: #141519; --ink: #e9eaec; --muted: #a4a9b3; --rule: #3a3d45;
    --c0: #7db0ff; --c1: #ffa45c; --c2: #6fd09a; --c3: #c79cf2; --c4: #a4a9b3; }
}
text { fill: var(--muted); font: 12px system-ui, sans-serif; }
.title { fill: var(--ink); font-size: 14px; }
.grid { stroke: var(--rule); }
"""
COLORS = 5
WIDTH, HEIGHT = 480, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 16, 44, 52
Point = tuple[float, float]


@dataclass(frozen=True)
class Panel:
    """A picture with axes. A line whose name begins with `measured` has dots alone."""

    title: str
    x_title: str
    y_title: str
    lines: Mapping[str, Sequence[Point]]
    y_log: bool = False
    dashed: frozenset[str] = field(default_factory=frozenset)


def svg(panels: Sequence[Panel]) -> str:
    """The panels side by side; the same text for the same numbers."""
    width = len(panels) * WIDTH
    body = "".join(_drawn(panel, i * WIDTH) for i, panel in enumerate(panels))
    label = html.escape("; ".join(panel.title for panel in panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'role="img" aria-label="{label}">\n<style>\n{STYLE}</style>\n'
        f'<rect fill="var(--paper)" width="{width}" height="{HEIGHT}"/>\n{body}</svg>\n'
    )


def _drawn(panel: Panel, left: float) -> str:
    points = [point for line in panel.lines.values() for point in line]
    xs = sorted({x for x, _ in points})
    most = max(y for _, y in points)
    least = min(y for _, y in points)
    ticks = _powers(least, most) if panel.y_log else _round_steps(most)
    x_range, y_range = (math.log(xs[0]), math.log(xs[-1])), (ticks[0], ticks[-1])
    x_span, y_span = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(point: Point) -> Point:
        across = (math.log(point[0]) - x_range[0]) / ((x_range[1] - x_range[0]) or 1)
        low, high, y = (*map(math.log, y_range), math.log(point[1])) if panel.y_log else (*y_range, point[1])
        return left + LEFT + across * x_span, HEIGHT - BOTTOM - (y - low) / (high - low) * y_span

    parts = [_text(left + LEFT + x_span / 2, 22, panel.title, "title")]
    parts += [_text(left + LEFT + x_span / 2, HEIGHT - 12, panel.x_title)]
    parts += [
        f'<text transform="translate({left + 16:.1f} {TOP + y_span / 2:.1f}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(panel.y_title)}</text>\n"
    ]
    for x in xs:
        at, _ = place((x, y_range[0]))
        parts.append(_text(at, HEIGHT - BOTTOM + 18, f"{x:g}"))
    for y in ticks:
        (x1, height), (x2, _) = place((xs[0], y)), place((xs[-1], y))
        parts.append(f'<line class="grid" x1="{x1:.1f}" y1="{height:.1f}" x2="{x2:.1f}" y2="{height:.1f}"/>\n')
        parts.append(_text(left + LEFT - 8, height + 4, f"{y:g}", anchor="end"))
    for i, (name, line) in enumerate(panel.lines.items()):
        parts.append(_line(name, [place(point) for point in line], i % COLORS, name in panel.dashed))
        parts.append(_text(left + LEFT + 10, TOP + 14 + 16 * i, name, anchor="start", color=i % COLORS))
    return "".join(parts)


def _line(name: str, places: Sequence[Point], color: int, is_dashed: bool) -> str:
    dots = "".join(f'<circle fill="var(--c{color})" cx="{x:.1f}" cy="{y:.1f}" r="3"/>\n' for x, y in places)
    if name.startswith("measured"):
        return dots
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dashes = ' stroke-dasharray="5 4"' if is_dashed else ""
    return f'<polyline fill="none" stroke="var(--c{color})" stroke-width="2"{dashes} points="{path}"/>\n{dots}'


def _round_steps(most: float) -> list[float]:
    """Round numbers from 0 to at least `most`."""
    power = 10 ** math.floor(math.log10(most))
    step = next(factor * power for factor in (0.1, 0.2, 0.5, 1, 2) if most / (factor * power) <= 8)
    return [step * i for i in range(math.ceil(most / step - 1e-9) + 1)]


def _powers(least: float, most: float) -> list[float]:
    """Powers of ten around least and most."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**i for i in range(first, max(last, first + 1) + 1)]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle", color: int | None = None) -> str:
    of_kind = f' class="{kind}"' if kind else ""
    style = "" if color is None else f' style="fill: var(--c{color})"'
    return f'<text{of_kind}{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>\n'
