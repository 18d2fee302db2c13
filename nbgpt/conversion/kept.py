"""What nbgpt keeps on this machine to be faster next time, and what of it is of no use any more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import partial, paths
from ..backend.kernel_cache import is_current

UNUSED_DAYS = 30
"""A conversion that nobody has loaded for so long goes; it is made again when it is asked for."""
_FOLDERS = {"converted": "*.safetensors", "features": "*.float32", "kernels": "*.o"}
_DAY = 86_400.0


@dataclass(frozen=True)
class Kept:
    """A file, or a folder that a killed process has left."""

    kind: str  # converted, features, kernels, partial
    path: Path
    n_bytes: int
    days: float  # since it was last used
    useless: str  # why it can go; empty if it should stay

    def remove(self) -> bool:
        """Remove it; False if that cannot be done."""
        if self.kind == "partial":
            return partial.remove_leftover(self.path)
        try:
            self.path.unlink()
        except OSError:
            return False
        return True


def everything() -> list[Kept]:
    """All that is kept, by kind. Raises ValueError for a user without a home, OSError if it cannot be looked at."""
    home = paths.home()
    places = [(kind, path) for kind, pattern in _FOLDERS.items() for path in sorted((home / kind).glob(pattern))]
    places += [("partial", path) for path in _partials(home)]
    found = []
    for kind, path in places:
        with suppress(FileNotFoundError):  # another process tidies too
            found.append(_kept(kind, path))
    return found


def _partials(home: Path) -> Iterator[Path]:
    for folder in ("models", *_FOLDERS):
        yield from partial.leftovers(home / folder)


def _kept(kind: str, path: Path) -> Kept:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    stats = [file.lstat() for file in files]
    days = max(0.0, time.time() - max(stat.st_mtime for stat in stats)) / _DAY
    return Kept(kind, path, sum(stat.st_size for stat in stats), days, _why_useless(kind, path, days))


def _why_useless(kind: str, path: Path, days: float) -> str:
    if kind == "partial":
        return "its process was killed"
    if kind == "kernels":
        return "" if is_current(path) else "for another version of nbgpt or Numba"
    return f"not used for {UNUSED_DAYS} days" if days > UNUSED_DAYS else ""
