"""What one step of the scheduler does, and how many rows it may have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .model_runner import MAX_ROWS
from .request import Request

ROW_BUDGET = 24
"""Rows of a step in which texts are continued while prompts are read: see bench/NOTES.md."""
LEAST_READ = 16
"""Of these rows for prompts, however many texts are continued."""


@dataclass
class Work:
    """What one step does: a call of the model runner, and what its result means for the requests."""

    requests: list[Request]
    run: Callable[[], Any]
    take: Callable[[Any], None]  # is given what `run` returns

    def note_time(self, seconds: float, was_decoding: set[int]) -> None:
        """Count the seconds as decoding for the requests with these numbers, and as prefill for the others."""
        for request in self.requests:
            if request.number in was_decoding:
                request.timing.decode_seconds += seconds
            else:
                request.timing.prefill_seconds += seconds


def row_budget(n_decoding: int, n_reading: int, least_read: int = LEAST_READ) -> int:
    """Rows of a step. Where more texts wait for their prompts than would be held up, prompts get more of them."""
    if not n_decoding:
        return MAX_ROWS
    return min(MAX_ROWS, max(ROW_BUDGET, n_decoding + least_read) * max(1, n_reading // n_decoding))
