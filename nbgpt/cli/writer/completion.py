"""What Tab offers while a line is being typed."""

from __future__ import annotations

from .candidates import Candidate
from .commands import COMMANDS

_FILE_COMMANDS = ("save", "save!", "load")  # their argument may have spaces


def completions(line: str) -> tuple[str, list[Candidate]]:
    """The last word of a line that is being typed, and what Tab may put in its place."""
    if not line.startswith("/") or line.startswith("//"):
        return "", []
    name, space, typed = line[1:].partition(" ")
    if not space:
        found = [Candidate(f"/{name}", command.summary) for name, command in COMMANDS.items()]
        word = line
    else:
        found = list(COMMANDS[name].complete(typed)) if name in COMMANDS else []
        word = typed if name in _FILE_COMMANDS else typed.rpartition(" ")[2]
    return word, [one for one in found if one.text.startswith(word)]
