"""Lines of the results, and how what is compared is measured: in turn, and medians are shown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from nbgpt.abi.targets import current_target
from nbgpt.analysis.benchmark import cpu_name

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


class Results:
    """Results of sections in a JSON file, and beside it as tables in Markdown; a section that is not kept stays."""

    def __init__(self, file: Path, head: str, sections: Mapping[str, Callable[..., Any]]) -> None:
        """head: what stands above the tables. sections: their functions, whose docstrings stand above each table."""
        self._file, self._head, self._sections = file, head, sections
        self._results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}

    def keep(self, section: str, figures: list[Figure]) -> None:
        """Write the figures of a section, in place of those it had."""
        self._results[section] = {
            "machine": f"{cpu_name()}, {os.cpu_count()} CPUs, {current_target().summary}",
            "date": str(date.today()),
            "figures": [asdict(figure) for figure in figures],
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._results, indent=2, ensure_ascii=False) + "\n")
        self._file.with_suffix(".md").write_text(self._as_markdown())

    def _as_markdown(self) -> str:
        lines = [self._head, ""]
        for name, section in self._sections.items():
            if result := self._results.get(name):
                lines += [f"## {name}", "", f"{section.__doc__} {result['machine']}, {result['date']}.", ""]
                lines += [*table([Figure(**figure) for figure in result["figures"]]), ""]
        return "\n".join(lines)
