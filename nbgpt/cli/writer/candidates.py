"""What may be put in place of a word that is being typed: words, files, settings and their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from .settings import SETTABLE


class Candidate(NamedTuple):
    """What Tab may put in place of the word that is being typed."""

    text: str
    meaning: str = ""


def words(*words: str) -> Callable[[str], Iterable[Candidate]]:
    """The same words whatever is typed."""
    return lambda typed: [Candidate(word) for word in words]


def paths(typed: str) -> Iterable[Candidate]:
    """Files and folders that begin as typed."""
    folder, _, _ = typed.rpartition("/")
    shown = f"{folder}/" if "/" in typed else ""
    try:
        found = sorted(Path(shown or ".").expanduser().iterdir())
        return [Candidate(f"{shown}{path.name}{'/' * path.is_dir()}") for path in found if path.name[0] != "."]
    except (OSError, RuntimeError):
        return []


def settings(typed: str) -> Iterable[Candidate]:
    """Names of settings, and after a name its values."""
    name, space, _ = typed.partition(" ")
    if not space:
        return [Candidate(name, one.help) for name, one in SETTABLE.items()]
    one = SETTABLE.get(name)
    values = one.choices or (("on", "off") if one.kind is bool else ()) if one else ()
    return [Candidate(str(value)) for value in values]
