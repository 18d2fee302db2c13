"""The CPU that kernels are compiled for, and what it can do.

`NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` choose another one than the host, as they do for Numba.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from . import amx

_OTHER_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}
ARCHITECTURE = _OTHER_NAMES.get(platform.machine().lower(), platform.machine())
"""The kind of CPU that this process runs on, as Linux calls it."""

_V1 = ("sse2",)
_V3 = (*_V1, "ssse3", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_ARM_BITS = {
    "neon": 1,
    "aes": 3,
    "sha2": 6,
    "crc": 7,
    "lse": 8,
    "fullfp16": 10,
    "rdm": 12,
    "rcpc": 15,
    "dotprod": 20,
}
"""LLVM's name of a feature -> its bit in AT_HWCAP of Linux on ARM (asm/hwcap.h)."""
_AT_HWCAP, _AT_HWCAP2 = 16, 26  # for getauxval(3)
_ARM_V8 = ("neon",)
_KNOWN = {
    "generic": {"x86_64": _V1, "aarch64": _ARM_V8}.get(ARCHITECTURE, ()),
    "x86-64": _V1,
    "haswell": _V3,
    "x86-64-v3": _V3,
    "x86-64-v4": _V4,
    "skylake-avx512": _V4,
    "cascadelake": (*_V4, "avx512vnni"),
    "cooperlake": (*_V4, "avx512vnni", "avx512bf16"),
    "cortex-a72": _ARM_V8,
    "neoverse-n1": tuple(_ARM_BITS),
}
_USERS = {"amx": amx.DTYPES, "bf16": ("bfloat16",), "vnni": ("int8", "int4")}
"""Types of weights whose kernels test a feature of x86, if not all do."""
_LINUX_NAMES = {"abm": "lzcnt", "bmi1": "bmi", **{name.replace("-", "_"): name for name in amx.FEATURES}}


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
    def bf16(self) -> bool:
        return self.avx512 and "avx512bf16" in self.features

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
    def architecture(self) -> str:
        """The kind of CPU; this process's if the features do not tell."""
        return "aarch64" if "neon" in self.features else "x86_64" if self.sse2 else ARCHITECTURE

    @property
    def triple(self) -> str:
        """LLVM's name of the system that the kernels run on: this one, or Linux on the other kind of CPU."""
        import llvmlite.binding as llvm

        if self.architecture != ARCHITECTURE:
            return f"{self.architecture}-unknown-linux-gnu"
        triple: str = llvm.get_process_triple()
        return triple.replace("arm64-", "aarch64-", 1)  # which is Apple's name for it

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
        return tuple(
            name for name in ("fma", "f16c", "avx512", "vnni", "bf16", "amx", "dotprod") if getattr(self, name)
        )

    def used_by(self, dtype: str) -> tuple[str, ...]:
        """The features that the kernels for one type of weights test."""
        return tuple(name for name in self.used if dtype in _USERS.get(name, (dtype,)))

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


_VNNI = frozenset((*_V4, "avx512vnni"))
_BF16 = _VNNI | {"avx512bf16"}
SHIPPED = (
    Target("x86-64-v4", _BF16 | amx.FEATURES),
    Target("x86-64-v4", _BF16),
    Target("x86-64-v4", _VNNI),
    Target("x86-64-v3", frozenset(_V3)),
)
"""Targets whose objects a wheel for x86-64 carries, best first."""
SHIPPED_FOR = {
    "x86_64": SHIPPED,
    "aarch64": tuple(Target(name, frozenset(_KNOWN[name])) for name in ("neoverse-n1", "cortex-a72")),
}
"""The same for every architecture that has wheels with objects."""


def shipped_targets(dtype: str, architecture: str) -> list[Target]:
    """Targets of a wheel's objects for one type of weights, best first.

    Of those whose kernels for this type are the same, the one that asks for least.
    """
    return list({target.used_by(dtype): target for target in SHIPPED_FOR[architecture]}.values())


def host_target() -> Target:
    """The CPU this runs on, with the features that kernels may use."""
    return _host().allowed


def _host() -> Target:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    has = frozenset(name for name, present in features.items() if present)
    if ARCHITECTURE == "aarch64":  # LLVM reads /proc/cpuinfo, which may be missing, and overlooks dotprod in it
        has |= _described_arm().features
    return Target(llvm.get_host_cpu_name(), has, frozenset(features) - has)


def _described_arm() -> Target:
    """An ARM CPU as the system describes it to every process; all of them have NEON."""
    import ctypes

    if sys.platform != "linux":
        return Target("aarch64", frozenset(_ARM_V8))
    ask = ctypes.CDLL(None).getauxval
    ask.argtypes, ask.restype = (ctypes.c_ulong,), ctypes.c_ulong
    said = ask(_AT_HWCAP)
    features = {*_ARM_V8, *(name for name, bit in _ARM_BITS.items() if said >> bit & 1)}
    return Target(f"aarch64-{said:x}-{ask(_AT_HWCAP2):x}", frozenset(features))


def described_host(cpuinfo: Path = Path("/proc/cpuinfo")) -> Target:
    """The host as Linux describes it, to select objects by; its name is not one of LLVM's.

    Loading LLVM for this takes 20 ms at each start; other systems do so. The features are those that the system lets
    programs use, AMX only if kernels may; LLVM spells most of them without underscores.
    """
    if ARCHITECTURE == "aarch64" and sys.platform == "linux":
        return _described_arm()
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
