"""Finds, compiles and loads the object file of the kernels, and caches it.

A warm start needs neither Numba nor llvmlite.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import signal
import stat
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ..abi.job import SLOT
from ..abi.layout import HEAD_DTYPE
from ..abi.targets import (
    ARCHITECTURE,
    SHIPPED_FOR,
    Target,
    current_target,
    described_host,
    host_target,
    shipped_targets,
)
from ..partial import whole_file
from ..paths import home
from ..strict_json import parse_object
from . import elf_loader, llvm_loader, parking

_PACKAGE = Path(__file__).parent.parent
_NOWHERE = Path(os.devnull)
"""The cache folder of a user without a home: a path below which nothing can be written."""
_HEADER_BYTES = 1 << 16
_SOURCES = ("abi/*.py", "simd/*.py", "kernels/*.py", "backend/__init__.py", "backend/compiler.py")


class KernelError(RuntimeError):
    """The kernels could not be compiled or loaded."""


@functools.cache
def source_digest() -> str:
    """SHA-256 over the sources of the kernels: an object file with another digest is out of date."""
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _versions() -> str:
    """Digest of the versions of Numba and llvmlite, without importlib.metadata, whose import takes 9 ms."""
    digest = hashlib.sha256()
    for package in ("numba", "llvmlite"):
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise KernelError(f"{package} is not installed: install nbgpt again")
        digest.update(Path(spec.origin).with_name("_version.py").read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Kernels:
    """The compiled forward pass for one type of weights."""

    enter: Any  # enter(counters, thread), see kernels/entries.py: a ctypes function, which runs without the GIL
    phases_of_layer: int
    other_phases: int


@dataclass(frozen=True)
class KernelObject:
    """Where the kernels for one type of weights are, or will be."""

    dtype: str
    target: Target | None  # None: the host's CPU, which LLVM detects in the compiler's process
    path: Path
    facts: dict[str, Any]  # fields that the file's header must have
    state: Literal["shipped", "cached", "to be compiled"]


def _facts(dtype: str, target: Target, versions: str) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "cpu": target.cpu,
        "features": target.llvm_features,
        "sources": source_digest(),
        "versions": versions,
        "job": SLOT,  # of the process that runs them: an upgrade may have changed the sources on disk since it started
    }


def _file_name(facts: dict[str, Any]) -> str:
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return f"{facts['cpu']}-{facts['dtype']}-{key}.o"


def cache_folder() -> Path:
    """The folder of object files that were compiled on this machine."""
    return home() / "kernels"


def _shipped_object(dtype: str, target: Target, folder: Path) -> KernelObject:
    facts = _facts(dtype, target, versions="")  # whichever Numba made it
    return KernelObject(dtype, target, folder / _file_name(facts), facts, "shipped")


def _chosen_target() -> Target | None:
    """The CPU of `NUMBA_CPU_NAME`; None: this one, which `described_host` knows without LLVM."""
    return current_target().allowed if os.environ.get("NUMBA_CPU_NAME") else None


def _cached_object(dtype: str) -> KernelObject:
    chosen = _chosen_target()
    facts = _facts(dtype, chosen or described_host(), _versions())
    try:
        path = cache_folder() / _file_name(facts)
    except ValueError:
        path = _NOWHERE / _file_name(facts)
    if _exists(path):
        return KernelObject(dtype, chosen, path, facts, "cached")
    return _of_this_cpu(dtype, chosen, facts) or KernelObject(dtype, chosen, path, facts, "to be compiled")


def _of_this_cpu(dtype: str, chosen: Target | None, facts: dict[str, Any]) -> KernelObject | None:
    """A cached object for this very CPU that was described otherwise, as /proc may be missing now."""
    try:
        paths = sorted(cache_folder().glob(f"*-{dtype}-*.o"))
    except (OSError, ValueError):
        return None
    target = (chosen or host_target()) if paths else None
    for path in paths:
        with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
            header = parse_object(file.readline(_HEADER_BYTES), str(path))
            described = {name: header.get(name) for name in facts}
            is_same = {**described, "cpu": facts["cpu"], "features": facts["features"]} == facts
            if is_same and target and header.get("target") == [target.cpu, target.llvm_features]:
                return KernelObject(dtype, chosen, path, described, "cached")
    return None


def _exists(path: Path) -> bool:
    """True if the file exists and its folder may be entered."""
    try:
        return path.exists()
    except OSError:
        return False


def find_object(dtype: str) -> KernelObject:
    """The object for this CPU: a shipped one if it uses every feature that kernels use here, else a compiled one."""
    if not os.environ.get("NUMBA_CPU_NAME") and on_shipped_platform():
        host = described_host()
        for candidate in shipped_targets(dtype, ARCHITECTURE):
            shipped = _shipped_object(dtype, candidate, _PACKAGE / "objects")
            fits = candidate.features <= host.features and candidate.used_by(dtype) == host.used_by(dtype)
            if fits and shipped.path.exists():
                return shipped
    return _cached_object(dtype)


def read_object(data: bytes, facts: dict[str, Any], where: str) -> tuple[dict[str, Any], bytes]:
    """Header and ELF of an object file. Raises KernelError if it is damaged or belongs to other kernels."""
    first, _, elf = data.partition(b"\n")
    try:
        header = parse_object(first, where)
        entry, digest = header["entry"], header["sha256"]
        int(header["phases_of_layer"]), int(header["other_phases"])
    except (ValueError, KeyError, TypeError) as error:
        raise KernelError(f"{where}: not a kernel object") from error
    if any(header.get(name) != value for name, value in facts.items()):
        raise KernelError(f"{where}: kernels of other sources or for another CPU")
    if hashlib.sha256(elf).hexdigest() != digest or not isinstance(entry, str):
        raise KernelError(f"{where}: damaged")
    return header, elf


def _is_private(path: Path) -> bool:
    """True if only this user or root can write it."""
    state = path.stat()
    return state.st_uid in (os.getuid(), 0) and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


_NOT_PRIVATE = "is not a private writable folder", "set NBGPT_HOME to a folder that is"
_FULL = "cannot be written: the disk is full", "make room, or set NBGPT_HOME to a folder on another"


def _keep(made: bytes, path: Path) -> tuple[str, str] | None:
    """Write an object file for this user alone. None, or why its folder cannot keep it, and the cure."""
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (_is_private(folder) and os.access(folder, os.W_OK)):
            return _NOT_PRIVATE
        with whole_file(path, mode=0o600) as file:
            file.write(made)
    except OSError as error:
        return _FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else _NOT_PRIVATE
    return None


def _compile(wanted: KernelObject) -> bytes:
    """Compile an object file in a child process, which ends when this process does. Raises KernelError."""
    import subprocess

    # the variables are no part of the key
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    if wanted.target:
        environment |= {"NUMBA_CPU_NAME": wanted.target.cpu, "NUMBA_CPU_FEATURES": wanted.target.llvm_features}
    # sys.path, so that the child imports this copy of nbgpt
    program = f"import sys; sys.path = {sys.path}; from nbgpt.backend.compiler import main_of_child; main_of_child()"
    try:
        ending, alive = os.pipe()  # when this process ends, however it does, the child reads the end of its input
        try:
            done = subprocess.run(
                [sys.executable, "-c", program, wanted.dtype, "-o", "-", "--facts", json.dumps(wanted.facts)],
                env=environment,
                stdin=ending,
                capture_output=True,
                check=False,
            )
        finally:
            os.close(ending)
            os.close(alive)
    except OSError as error:  # no more processes, or descriptors
        raise KernelError(f"cannot compile the kernels for {_cpu(wanted)}: {error.strerror or error}") from error
    if done.returncode:
        code, said = done.returncode, done.stderr.decode(errors="replace").strip().splitlines()
        if code < 0:
            reason = f"the compiler was ended by signal {-code} ({signal.strsignal(-code)})"
        else:
            reason = said[-1] if said else f"exit code {code}"
        raise KernelError(f"cannot compile the kernels for {_cpu(wanted)}: {reason}")
    return done.stdout


def _cpu(wanted: KernelObject) -> str:
    return wanted.target.cpu if wanted.target else "this CPU"


def _compile_and_keep(wanted: KernelObject) -> tuple[dict[str, Any], bytes]:
    print(f"nbgpt: compiling {wanted.dtype} kernels for {_cpu(wanted)}, once (5 to 20 s)", file=sys.stderr)
    made = _compile(wanted)
    result = read_object(made, wanted.facts, "what the compiler made (was nbgpt changed while it ran?)")
    if problem := _keep(made, wanted.path):
        folder = "HOME" if wanted.path.parent == _NOWHERE else wanted.path.parent
        print(f"nbgpt: {folder} {problem[0]}: kernels not kept; {problem[1]}", file=sys.stderr)
    return result


def is_current(path: Path) -> bool:
    """True if an object file was compiled from these sources by this Numba."""
    try:
        with path.open("rb") as file:
            header = parse_object(file.readline(_HEADER_BYTES), str(path))
    except (OSError, ValueError):
        return False
    return (header.get("sources"), header.get("versions")) == (source_digest(), _versions())


def on_shipped_platform() -> bool:
    """True if the objects that a wheel carries run on this platform."""
    return sys.platform == "linux" and ARCHITECTURE in SHIPPED_FOR


def build_shipped(folder: Path, architecture: str) -> list[Path]:
    """Compile the objects that a wheel for Linux carries into a folder, on all cores. Raises KernelError.

    architecture: of the wheel, which need not be that of this machine.
    """
    from concurrent.futures import ThreadPoolExecutor

    wanted = [
        _shipped_object(dtype, target, folder)
        for dtype in HEAD_DTYPE
        for target in shipped_targets(dtype, architecture)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for one, made in zip(wanted, pool.map(_compile, wanted), strict=True):
            one.path.write_bytes(made)
    return [one.path for one in wanted]


@functools.cache
def load_kernels(dtype: str) -> Kernels:
    """The kernels for one type of weights, compiled if there is no object for this CPU. Raises KernelError."""
    _note_other_bits()
    for find in (find_object, _cached_object):
        found = find(dtype)
        with contextlib.suppress(KernelError, OSError):
            if found.state == "shipped" or (_is_private(found.path.parent) and _is_private(found.path)):
                return _link(*read_object(found.path.read_bytes(), found.facts, str(found.path)))
    return _link(*_compile_and_keep(found))


@functools.cache
def _note_other_bits() -> None:
    """Say once that texts of this CPU are not everybody's. CPUs have FMA instructions since about 2013."""
    if not (_chosen_target() or described_host()).fma:
        print("nbgpt: this CPU has no FMA instruction: its texts may differ from other machines'", file=sys.stderr)


def _link(header: dict[str, Any], elf: bytes) -> Kernels:
    """Load the machine code of an object."""
    entry = header["entry"]
    try:
        enter = llvm_loader.link(elf, entry) if parking.is_needed() else elf_loader.link(elf, entry)
    except elf_loader.UnknownObjectError:
        enter = llvm_loader.link(elf, entry)
    return Kernels(enter, header["phases_of_layer"], header["other_phases"])
