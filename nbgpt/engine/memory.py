"""How much memory this process may use."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

KV_SHARE = 0.25
"""Of the memory that the machine or the control group allows: the limit of the KV cache unless told otherwise."""


def default_kv_memory() -> int:
    """Bytes that the KV cache may take: a share of what the machine has, or of the control group's limit."""
    return int(KV_SHARE * min(_physical_memory(), cgroup_memory()))


def _physical_memory() -> float:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 4 << 30


def cgroup_memory(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes that the control group (version 2 or 1) allows; infinity where there is no limit."""
    limits = [float("inf")]
    with contextlib.suppress(OSError, ValueError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                folder = root / path.lstrip("/")
                for group in (folder, *folder.parents):  # a parent's limit binds its children
                    limits += _limit(group / "memory.max")
            elif "memory" in controllers.split(","):
                limits += _limit(root / "memory" / path.lstrip("/") / "memory.limit_in_bytes")
                limits += _limit(root / "memory" / "memory.limit_in_bytes")
    return min(limits)


def _limit(file: Path) -> list[float]:
    try:
        return [float(file.read_text())]
    except (OSError, ValueError):  # not there, or "max"
        return []
