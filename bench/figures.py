"""Lines of the results, and how what is compared is measured: in turn, and medians are shown."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Figure:
    """A line of the results."""

    what: str
    goal: str
    measured: str
    reached: bool | None  # None: there is no goal, the line is there for comparison


def share(what: str, value: float, goal: float | None, explanation: str) -> Figure:
    """A share that should be at least the goal."""
    measured = f"{value:.0%} ({explanation})"
    return Figure(what, f"≥ {goal:.0%}", measured, value >= goal) if goal else Figure(what, "", measured, None)


def medians(runs: dict[Name, Callable[[], float]], rounds: int) -> dict[Name, float]:
    """What each call returns, all of them in turn, after once to warm up."""
    for run in runs.values():
        run()
    samples: dict[Name, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            samples[name].append(run())
    return {name: median(values) for name, values in samples.items()}


def table(figures: list[Figure]) -> list[str]:
    """The lines of a Markdown table."""
    lines = ["| what | goal | measured | reached |", "|---|---|---|---|"]
    for one in figures:
        reached = {True: "yes", False: "**no**", None: ""}[one.reached]
        lines.append(f"| {one.what} | {one.goal} | {one.measured} | {reached} |")
    return lines
