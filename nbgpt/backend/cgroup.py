"""Control groups of Linux that limit the CPU time and the memory of this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def groups(controller: str, root: Path = ROOT, membership: Path = MEMBERSHIP) -> Iterator[tuple[int, Path]]:
    """(version 2 or 1, folder) of each group that limits this process by a controller, such as "cpu" or "memory".

    A parent's limit binds its children, so parents are listed too. Yields nothing where there are no control groups.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                folder = root / path.lstrip("/")
                yield from ((2, group) for group in (folder, *folder.parents))
            elif controller in controllers.split(","):
                yield from ((1, root / controller / part) for part in (path.lstrip("/"), ""))
