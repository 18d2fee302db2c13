"""Files that are written under another name and locked meanwhile: they become whole, or do not come to be.

A process that is killed leaves its partial file, but not the lock: so another process knows that it may remove it. As
some network file systems give every process the lock, it waits for an hour without a write besides.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

IDLE_SECONDS = 3600.0
"""What nobody has written to for so long, and nobody has locked, is left over."""
_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial")


@contextlib.contextmanager
def whole_file(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Write a file atomically: it replaces an older one when the block ends without an error.

    The data is on the disk before the file takes its name. What killed processes have left of the same file, an hour
    ago or earlier, is removed. A path that exists and is not a regular file, as a pipe, is written to directly.

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
    scratch, descriptor = _locked_folder(folder / name)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(descriptor)


def leftovers(folder: Path, name: str | None = None, idle: float | None = None) -> list[Path]:
    """Partial files and scratch folders, of this name or of any, whose process has ended.

    idle: seconds since the last write, as not every file system knows locks; None: an hour.
    """
    found = folder.glob(".*.partial" if name is None else f".{glob.escape(name)}.*.partial")
    named = [path for path in sorted(found) if (match := _PARTIAL.fullmatch(path.name)) and name in (None, match[1])]
    return [path for path in named if _if_left(path, lambda path: True, idle)]


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove the partial files and scratch folders of this name whose process ended an hour ago or earlier."""
    for path in leftovers(folder, name):
        remove_leftover(path)


def remove_leftover(path: Path, idle: float | None = None) -> bool:
    """Remove one of `leftovers`; False if that cannot be, or somebody writes it after all."""
    return _if_left(path, _remove, idle)


def _remove(path: Path) -> bool:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError:
        return False
    return True


def _if_left(path: Path, act: Callable[[Path], bool], idle: float | None) -> bool:
    """What `act` returns while this process has the lock of a partial file; False if somebody writes it."""
    try:
        descriptor = _open(path)
    except OSError:
        return False
    try:
        return _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_idle(path, idle) and act(path)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """A descriptor to lock a file or folder by; NFS locks no file that is open for reading alone."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, flags | os.O_RDWR)
    except IsADirectoryError:
        return os.open(path, flags | os.O_RDONLY)


def _is_idle(path: Path, idle: float | None) -> bool:
    """True if nobody has written for so many seconds to a file, or to a folder and what is in it."""
    try:
        newest = max(one.lstat().st_mtime for one in (path, *path.rglob("*")))
    except OSError:  # it is being tidied
        return False
    return time.time() - newest > (IDLE_SECONDS if idle is None else idle)


def _lock(descriptor: int, how: int) -> bool:
    """Lock an open file; False if another process has the lock, or the file system knows no locks."""
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        return False
    return True


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")


def _locked_folder(path: Path) -> tuple[Path, int]:
    """A new folder for `path`, and the descriptor that has its lock. Somebody that tidies may take the first one."""
    while True:
        scratch = _partial_name(path)
        scratch.mkdir(mode=0o700)
        try:
            descriptor = os.open(scratch, os.O_RDONLY)
        except FileNotFoundError:
            continue
        _lock(descriptor, fcntl.LOCK_EX)
        if scratch.is_dir():
            return scratch, descriptor
        os.close(descriptor)


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
