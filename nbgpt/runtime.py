"""Object files to callable kernels, and the cache they are kept in. Imports llvmlite, never Numba."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .layout import HEAD_DTYPE
from .paths import home
from .targets import SHIPPED, Target, current_target

_HERE = Path(__file__).parent
_SOURCES = ("kernels/*.py", "simd/*.py", "compiler.py", "job.py", "layout.py", "targets.py")


class KernelError(RuntimeError):
    """The kernels could not be compiled or loaded."""


@functools.cache
def source_digest() -> str:
    """Changes whenever a source that kernels are made of does."""
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(_HERE.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class KernelObject:
    """Where the kernels for one type of weights are, or will be."""

    dtype: str
    target: Target
    path: Path
    facts: dict[str, str]  # what the header of the file has to say
    state: Literal["shipped", "cached", "to be compiled"]


def _facts(dtype: str, target: Target, versions: str) -> dict[str, str]:
    return {
        "dtype": dtype,
        "cpu": target.cpu,
        "features": target.llvm_features,
        "sources": source_digest(),
        "versions": versions,
    }


def _file_name(facts: dict[str, str]) -> str:
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return f"{facts['cpu']}-{facts['dtype']}-{key}.o"


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    return home() / "kernels"


def _shipped_object(dtype: str, target: Target, folder: Path) -> KernelObject:
    facts = _facts(dtype, target, versions="")  # whichever Numba made it
    return KernelObject(dtype, target, folder / _file_name(facts), facts, "shipped")


def _cached_object(dtype: str) -> KernelObject:
    from importlib.metadata import version

    target = current_target()
    facts = _facts(dtype, target, f"numba {version('numba')}, llvmlite {version('llvmlite')}")
    path = cache_folder() / _file_name(facts)
    return KernelObject(dtype, target, path, facts, "cached" if path.exists() else "to be compiled")


def find_object(dtype: str) -> KernelObject:
    """The object for this CPU: shipped if it uses all that the kernels can use here, else compiled at first use."""
    target = current_target()
    if not os.environ.get("NUMBA_CPU_NAME") and on_shipped_platform():
        for candidate in SHIPPED:
            shipped = _shipped_object(dtype, candidate, _HERE / "objects")
            if candidate.features <= target.features and candidate.used == target.used and shipped.path.exists():
                return shipped
    return _cached_object(dtype)


def read_object(path: Path, facts: dict[str, str]) -> tuple[dict[str, Any], bytes]:
    """Header and ELF of an object file. Raises KernelError unless it is whole and what it should be."""
    first, _, elf = path.read_bytes().partition(b"\n")
    try:
        header = json.loads(first)
        entry, digest = header["entry"], header["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise KernelError(f"{path}: not a kernel object") from error
    if any(header.get(name) != value for name, value in facts.items()):
        raise KernelError(f"{path}: kernels of other sources or for another CPU")
    if hashlib.sha256(elf).hexdigest() != digest or not isinstance(entry, str):
        raise KernelError(f"{path}: damaged")
    return header, elf


def _is_private(path: Path) -> bool:
    """Can nobody but this user, or root, write it?"""
    state = path.stat()
    return state.st_uid in (os.getuid(), 0) and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _can_keep_in(folder: Path) -> bool:
    """Make a folder for this user alone; False where it cannot be written or others can write it too."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _is_private(folder) and os.access(folder, os.W_OK)
    except OSError:
        return False


def _compile(wanted: KernelObject, folder: str) -> Path:
    """Compile in another process -> a file in the folder. Raises KernelError."""
    made = Path(folder) / wanted.path.name
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}  # not in the key
    environment |= {"NUMBA_CPU_NAME": wanted.target.cpu, "NUMBA_CPU_FEATURES": wanted.target.llvm_features}
    program = f"import sys; sys.path = {sys.path}; from nbgpt.compiler import main; main()"  # this nbgpt, and no other
    done = subprocess.run(
        [sys.executable, "-c", program, wanted.dtype, "-o", str(made), "--facts", json.dumps(wanted.facts)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise KernelError(f"cannot compile the kernels for {wanted.target.cpu}: {reason[0]}")
    return made


def _compile_and_keep(wanted: KernelObject) -> tuple[dict[str, Any], bytes]:
    cache = wanted.path.parent
    print(f"nbgpt: compiling {wanted.dtype} kernels for {wanted.target.cpu}, once (about 10 s)", file=sys.stderr)
    keep = _can_keep_in(cache)
    with tempfile.TemporaryDirectory(dir=cache if keep else None, prefix=".compiling-") as folder:
        made = _compile(wanted, folder)
        result = read_object(made, wanted.facts)
        if keep:
            made.chmod(0o600)
            made.replace(wanted.path)  # whole or not at all, whoever else compiles at the same time
        else:
            print(f"nbgpt: {cache} is not a private writable folder: kernels not kept", file=sys.stderr)
    return result


def on_shipped_platform() -> bool:
    """Are the objects that a wheel carries made for this kind of machine?"""
    return sys.platform == "linux" and os.uname().machine == "x86_64"


def build_shipped(folder: Path) -> list[Path]:
    """Compile what a wheel carries into a folder, with all cores; for the build of a wheel. Raises KernelError."""
    from concurrent.futures import ThreadPoolExecutor

    wanted = [_shipped_object(dtype, target, folder) for target in SHIPPED for dtype in HEAD_DTYPE]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda one: _compile(one, str(folder)), wanted))


@functools.cache
def load_kernels(dtype: str) -> Any:
    """The compiled entry `enter(team, me)` for one type of weights, compiling it if need be.

    Raises KernelError.
    """
    for find in (find_object, _cached_object):
        found = find(dtype)
        with contextlib.suppress(KernelError, OSError):
            if found.state == "shipped" or (_is_private(found.path.parent) and _is_private(found.path)):
                return _link(*read_object(found.path, found.facts))
    return _link(*_compile_and_keep(found))


def _link(header: dict[str, Any], elf: bytes) -> Any:
    """Put machine code into memory and return its entry as a ctypes function (which runs without the GIL)."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(elf))
    engine.finalize_object()
    address = engine.get_function_address(header["entry"])
    enter = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(address)
    enter.engine = engine  # type: ignore[attr-defined]  # its memory must live as long as the function
    return enter
