"""Where files lie, those that come with nbgpt and those that it keeps for its user, and how they get there whole."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def shipped(name: str) -> Path:
    """A file of `weights/`: inside the package in an installed wheel, beside it in a checkout or an editable install.

    Raises FileNotFoundError if it is in neither.
    """
    package = Path(__file__).parent
    for folder in (package / "data", package.parent / "weights"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{name} is missing from {package / 'data'}; install nbgpt again")


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


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written, which takes its name when all of it is on the disk; until then an older one stays.

    OSErrors speak of that name. What is neither a file nor a folder, as a pipe, is written to as it is.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "this is a folder; the name of a file is wanted", str(path))
    if path.exists() and not path.is_file():
        with path.open("wb") as pipe:
            yield pipe
        return
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
