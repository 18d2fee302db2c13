"""Where a sentence or a paragraph ends, in a text that grows piece by piece."""

from __future__ import annotations

import re

from .manuscript import End

_ABBREVIATIONS = r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bProf)(?<!\b[A-Z])"
_ENDS: dict[End, re.Pattern[str]] = {
    "length": re.compile(r"(?!)"),
    "sentence": re.compile(rf"""(?:[!?…]|{_ABBREVIATIONS}\.)[.!?…]*["'”’)\]]*(?=\s)|[^\s](?=\s*\n\s*\n)|[。！？]"""),
    "paragraph": re.compile(r"\S(?=[^\S\n]*\n)"),
}
"""What the last characters are. A sentence has ended when a space follows its full stop: "3.14" has none."""
_CONTEXT = 8
"""Characters before the new text that decide what its first characters mean."""


def length_of(text: str, end: End, before: str = "") -> int | None:
    """How many characters of a continuation belong to its first sentence or paragraph; None while it has not ended.

    Args:
        text: the continuation so far.
        end: what is to end.
        before: the text that is continued: it may end within an abbreviation.
    """
    context = before[-_CONTEXT:]
    for found in _ENDS[end].finditer(context + text):
        if found.end() > len(context):
            return found.end() - len(context)
    return None
