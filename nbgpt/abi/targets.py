"""The CPU that kernels are compiled for, and what it can do.

`NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` choose another one than the host, as they do for Numba.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path

from . import amx

_V1 = ("sse2",)
_V3 = (*_V1, "ssse3", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_KNOWN = {
    "generic": _V1 if platform.machine() == "x86_64" else (),
    "x86-64": _V1,
    "haswell": _V3,
    "x86-64-v3": _V3,
    "x86-64-v4": _V4,
    "skylake-avx512": _V4,
    "cascadelake": (*_V4, "avx512vnni"),
}
_LINUX_NAMES = {"abm": "lzcnt", "bmi1": "bmi", "amx_tile": "amx-tile", "amx_int8": "amx-int8"}


@dataclass(frozen=True)
class Target:
    """A CPU: LLVM's name and its features."""

    cpu: str
    features: frozenset[str]
    missing: frozenset[str] = frozenset()
    """Features that LLVM assumes from the name, but that are not there (virtual machines hide some) or not allowed."""

    @property
    def fma(self) -> bool:
        return bool({"fma", "avx512f", "neon"} & self.features)

    @property
    def f16c(self) -> bool:
        return bool({"f16c", "avx512f", "neon"} & self.features)

    @property
    def avx512(self) -> bool:
        return {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= self.features

    @property
    def vnni(self) -> bool:
        return "avx512vnni" in self.features if self.avx512 else {"avx2", "avxvnni"} <= self.features

    @property
    def amx(self) -> bool:
        return self.features >= amx.NEEDED

    @property
    def sse2(self) -> bool:
        return "sse2" in self.features

    @property
    def ssse3(self) -> bool:
        return "ssse3" in self.features

    @property
    def dotprod(self) -> bool:
        return {"neon", "dotprod"} <= self.features

    @property
    def register_bytes(self) -> int:
        """Bytes of the widest register."""
        return 64 if self.avx512 else 32 if "avx2" in self.features else 16

    @property
    def llvm_features(self) -> str:
        """LLVM's feature string; missing features come last, because one feature can imply others."""
        return ",".join([f"+{name}" for name in sorted(self.features)] + [f"-{name}" for name in sorted(self.missing)])

    @property
    def used(self) -> tuple[str, ...]:
        """The features that kernels test."""
        return tuple(name for name in ("fma", "f16c", "avx512", "vnni", "amx") if getattr(self, name))

    @property
    def allowed(self) -> Target:
        """The same CPU without AMX, unless kernels may use that."""
        unused = amx.FEATURES & self.features
        if not unused or not amx.obstacle(self.features):
            return self
        return replace(self, features=self.features - unused, missing=self.missing | unused)

    @property
    def summary(self) -> str:
        """The CPU and the features that kernels use, for messages."""
        return f"{self.cpu} ({', '.join(self.used) or 'no SIMD extensions used'})"


SHIPPED = (
    Target("x86-64-v4", frozenset((*_V4, "avx512vnni"))),
    Target("x86-64-v3", frozenset(_V3)),
)
"""Targets whose objects a wheel carries, best first."""


def host_target() -> Target:
    """The CPU this runs on, with the features that kernels may use."""
    return _host().allowed


def _host() -> Target:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    has = frozenset(name for name, present in features.items() if present)
    return Target(llvm.get_host_cpu_name(), has, frozenset(features) - has)


def described_host(cpuinfo: Path = Path("/proc/cpuinfo")) -> Target:
    """The host from /proc/cpuinfo of an x86-64 Linux, to select objects by; its name is not one of LLVM's.

    Loading LLVM for this takes 20 ms at each start; other systems do so. The features are those that the system lets
    programs use, AMX only if kernels may; LLVM spells most of them without underscores.
    """
    try:
        with cpuinfo.open("rb", buffering=0) as file:
            first = file.read(1 << 13).partition(b"\n\n")[0].decode(errors="replace")
    except OSError:
        return host_target()
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    if not {"vendor_id", "cpu family", "model", "flags"} <= said.keys():
        return host_target()
    features = {_LINUX_NAMES.get(flag, flag.replace("_", "")) for flag in said["flags"].split()}
    return Target(f"{said['vendor_id']}-{said['cpu family']}-{said['model']}", frozenset(features)).allowed


def current_target() -> Target:
    """The CPU to compile for: `NUMBA_CPU_NAME`, else the host. Raises ValueError for a name not known."""
    name = os.environ.get("NUMBA_CPU_NAME")
    if not name:
        return host_target()
    chosen = os.environ.get("NUMBA_CPU_FEATURES", "").split(",")
    added, removed = ({feature[1:] for feature in chosen if feature.startswith(sign)} for sign in "+-")
    if name not in _KNOWN and not added:
        host = host_target()
        if name != host.cpu:
            raise ValueError(f"NUMBA_CPU_NAME is {name!r}; choose one of {', '.join(_KNOWN)}, or name its features too")
        return host
    return Target(name, frozenset({*_KNOWN.get(name, ()), *added} - removed), frozenset(removed))


def amx_obstacle() -> str:
    """Why kernels use no AMX; empty if they do."""
    named = os.environ.get("NUMBA_CPU_NAME")
    return amx.obstacle((current_target() if named else _host()).features)
