"""The control groups of Linux that bind this process, where limits of CPU time and memory are found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def groups(controller: str, root: Path = ROOT, membership: Path = MEMBERSHIP) -> Iterator[tuple[int, Path]]:
    """The version (2 or 1) and folder of each group that has a say about a controller, such as "cpu" or "memory".

    A parent's limit binds its children, so parents are listed too. None where the system has no control groups.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                folder = root / path.lstrip("/")
                yield from ((2, group) for group in (folder, *folder.parents))
            elif controller in controllers.split(","):
                yield from ((1, root / controller / part) for part in (path.lstrip("/"), ""))
