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
    """
    if chosen := os.environ.get("NBGPT_HOME"):
        return Path(chosen).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "nbgpt"
