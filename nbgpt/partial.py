"""Files that are written under another name and locked meanwhile: they become whole, or do not come to be.

A process that is killed leaves its partial file, but not the lock: so another process knows that it may remove it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial")


@contextlib.contextmanager
def whole_file(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Write a file atomically: it replaces an older one when the block ends without an error.

    The data is on the disk before the file takes its name. What killed processes have left of the same file is
    removed. A path that exists and is not a regular file, as a pipe, is written to directly.

    Args:
        path: of the file.
        mode: its permissions, without those that the umask takes away.

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
    remove_leftovers(path.parent, path.name)
    try:
        with _locked_file(path, mode) as (file, partial):
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)  # before the lock goes with the descriptor
    except OSError as error:
        if error.filename is None or str(error.filename).endswith(".partial"):
            error.filename, error.filename2 = str(path), None
        raise


@contextlib.contextmanager
def scratch_folder(folder: Path, name: str) -> Iterator[Path]:
    """A folder for the time of the block, of which the name says what it is for."""
    remove_leftovers(folder, name)
    scratch = _partial_name(folder / name)
    scratch.mkdir(mode=0o700)
    descriptor = os.open(scratch, os.O_RDONLY)
    _lock(descriptor, fcntl.LOCK_EX)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(descriptor)


def leftovers(folder: Path, name: str | None = None) -> list[Path]:
    """Partial files and scratch folders, of this name or of any, whose process has ended."""
    found = folder.glob(".*.partial" if name is None else f".{glob.escape(name)}.*.partial")
    named = [path for path in sorted(found) if (match := _PARTIAL.fullmatch(path.name)) and name in (None, match[1])]
    return [path for path in named if _with_lock(path, lambda path: True)]


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove the partial files and scratch folders of this name whose process has ended."""
    for path in leftovers(folder, name):
        remove_leftover(path)


def remove_leftover(path: Path) -> bool:
    """Remove one of `leftovers`; False if that cannot be, or somebody writes it after all."""
    return _with_lock(path, _remove)


def _remove(path: Path) -> bool:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError:
        return False
    return True


def _with_lock(path: Path, act: Callable[[Path], bool]) -> bool:
    """What `act` returns while this process has the lock of a partial file; False if its writer has it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) and act(path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, how: int) -> bool:
    """Lock an open file; False if another process has the lock, or the file system knows no locks."""
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        return False
    return True


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")


@contextlib.contextmanager
def _locked_file(path: Path, mode: int) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file to be written for `path`, and its name. Another process that just tidies may take the first one."""
    while True:
        partial = _partial_name(path)
        with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            _lock(file.fileno(), fcntl.LOCK_EX)
            if not os.fstat(file.fileno()).st_nlink:
                continue
            try:
                yield file, partial
            except BaseException:
                with contextlib.suppress(OSError):
                    partial.unlink()
                raise
            return
