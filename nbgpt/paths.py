"""Where files are: those of the package, and the user's models and kernels."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def shipped(name: str) -> Path:
    """Path of a file of `weights/`: in the package if a wheel was installed, beside it in a checkout.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    package = Path(__file__).parent
    for folder in (package / "data", package.parent / "weights"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{name} is missing from {package / 'data'}; install nbgpt again")


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Give an OSError of the block the file's name, which one of a read lacks."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def home() -> Path:
    """The folder for models and kernels, which may not exist yet: `$NBGPT_HOME`, else `nbgpt` in the user's cache.

    Source: XDG Base Directory Specification, which says to ignore a relative `$XDG_CACHE_HOME`.

    Raises:
        ValueError: the system does not know the user's home folder.
    """
    chosen = os.environ.get("NBGPT_HOME")
    has_home = os.environ.get("HOME") != ""  # which Python takes for the root
    try:
        if chosen and (has_home or not chosen.startswith("~")):
            return Path(chosen).expanduser()
        cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not chosen and (has_home or cache.is_absolute()):
            return (cache if cache.is_absolute() else Path.home() / ".cache") / "nbgpt"
    except RuntimeError:
        pass
    known = f"NBGPT_HOME is {chosen!r}" if chosen else "HOME is not set"
    raise ValueError(f"{known} and names no folder: set NBGPT_HOME to one for models and kernels")
