"""Progress bars on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def progress_bar(label: str, unit: str, total: int | None = None, **options: Any) -> Any:
    """A bar of tqdm, shown if standard error is a terminal and the work takes more than half a second.

    Args:
        label: what is done.
        unit: what is counted.
        total: how many of them there are; None: nobody knows, or options have the iterable.
        options: others of tqdm's.

    Returns:
        The bar, which ends with its `with` statement; `update(n)` counts n more.
    """
    from tqdm import tqdm

    return tqdm(desc=label, unit=unit, total=total, **{"file": sys.stderr, "delay": 0.5, "disable": None, **options})


@contextmanager
def counting(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar -> a function of what is done and what there is."""
    with progress_bar(label, unit) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
