"""From samples to figures: tokens a second, and how nbgpt compares: median and quartiles of the ratios in a round."""

from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class Row:
    """An entrant in a test."""

    test: str
    dtype: str
    threads: int
    name: str
    speed: float  # tokens a second, median of the rounds
    ratios: tuple[float, float, float] | None  # nbgpt's speed by its, first to third quartile; None for nbgpt


def rows(section: dict[str, Any]) -> list[Row]:
    """Entrants of a section, nbgpt first, then the faster first."""
    (ours, own_seconds), *peers = section["seconds"].items()
    test = (section["test"], section["dtype"], section["threads"])
    first = Row(*test, ours, section["tokens"] / median(own_seconds), None)
    others = [
        Row(*test, name, section["tokens"] / median(seconds), _quartiles(seconds, own_seconds))
        for name, seconds in peers
    ]
    return [first, *sorted(others, key=lambda row: -row.speed)]


def _quartiles(seconds: list[float], own_seconds: list[float]) -> tuple[float, float, float]:
    ratios = [theirs / own for theirs, own in zip(seconds, own_seconds, strict=True)]
    return tuple(quantiles(ratios, method="inclusive")) if len(ratios) > 1 else (ratios[0],) * 3


def fastest_peer(section: dict[str, Any]) -> Row | None:
    """The peer that is closest to nbgpt in the rounds of a section."""
    return min(rows(section)[1:], key=lambda row: row.ratios[1], default=None)
