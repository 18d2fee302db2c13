"""Where files lie: those that come with nbgpt, and those that it keeps for its user."""

from __future__ import annotations

import os
from pathlib import Path


def shipped(name: str) -> Path:
    """A file of `weights/`: inside the package in an installed wheel, beside it in a checkout or an editable install.

    Raises FileNotFoundError if it is in neither.
    """
    package = Path(__file__).parent
    for folder in (package / "weights", package.parent / "weights"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{name} is missing from {package / 'weights'}; install nbgpt again")


def home() -> Path:
    """The folder for models and kernels, which need not exist yet: `$NBGPT_HOME`, else `nbgpt` in the user's cache.

    Source: XDG Base Directory Specification; a relative `$XDG_CACHE_HOME` is to be ignored.
    Raises ValueError for a user whose home folder the system does not know.
    """
    chosen = os.environ.get("NBGPT_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser()
        cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (cache if cache.is_absolute() else Path.home() / ".cache") / "nbgpt"
    except RuntimeError:
        known = f"NBGPT_HOME is {chosen!r}" if chosen else "HOME is not set"
        raise ValueError(f"{known} and names no folder: set NBGPT_HOME to one for models and kernels") from None
