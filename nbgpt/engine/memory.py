"""How much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from ..backend.cgroup import MEMBERSHIP, ROOT, groups

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


def cgroup_memory(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float:
    """Bytes that the control groups (version 2 or 1) allow; infinity where there is no limit."""
    files = {2: "memory.max", 1: "memory.limit_in_bytes"}
    limits = [_limit(group / files[version]) for version, group in groups("memory", root, membership)]
    return min(limits, default=float("inf"))


def _limit(file: Path) -> float:
    try:
        return float(file.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return float("inf")
