"""Where files are: those of the package, and the user's models and kernels. Writing a file atomically."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


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


def home() -> Path:
    """The folder for models and kernels, which may not exist yet: `$NBGPT_HOME`, else `nbgpt` in the user's cache.

    Source: XDG Base Directory Specification, which says to ignore a relative `$XDG_CACHE_HOME`.

    Raises:
        ValueError: the system does not know the user's home folder.
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
    """Write a file atomically: it replaces an older one when the block ends without an error.

    The data is on the disk before the file takes its name. A path that exists and is not a regular file, as a pipe, is
    written to directly.

    Args:
        path: of the file.

    Yields:
        The open file, binary.

    Raises:
        OSError: with `path` as its filename; IsADirectoryError for a folder.
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
