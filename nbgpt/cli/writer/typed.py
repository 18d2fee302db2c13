"""What both ways to read a terminal share: the prompt, what Tab asks, and files for what was typed."""

from __future__ import annotations

from collections.abc import Callable

from ...paths import home
from .candidates import Candidate

PROMPT, MORE = "> ", "  "
"""What stands before the first line of the input, and before the others."""
Complete = Callable[[str], tuple[str, list[Candidate]]]
"""The line so far -> its last word, and what may stand in its place."""


def writable_file(name: str) -> str | None:
    """The path of a file in the user's folder that can be written to, or None."""
    try:
        path = home() / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("ab"):
            return str(path)
    except (OSError, ValueError):
        return None
