"""Object files to callable kernels, and the cache they are kept in. Imports llvmlite, never Numba."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import json
import os
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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


def _facts(dtype: str, target: Target, *versions: str) -> dict[str, str]:
    return {
        "dtype": dtype,
        "cpu": target.cpu,
        "features": target.llvm_features,
        "sources": source_digest(),
        "versions": " ".join(versions),
    }


def _file_name(facts: dict[str, str]) -> str:
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return f"{facts['cpu']}-{facts['dtype']}-{key}.o"


def shipped_object(dtype: str, target: Target) -> tuple[Path, dict[str, str]]:
    """Path and facts of an object that a wheel carries for a target."""
    facts = _facts(dtype, target)
    return _HERE / "objects" / _file_name(facts), facts


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    return home() / "kernels"


def find_object(dtype: str) -> KernelObject:
    """The best object there is for this CPU, or where one will be compiled to."""
    target = current_target()
    if "NUMBA_CPU_NAME" not in os.environ:
        for candidate in SHIPPED:
            path, facts = shipped_object(dtype, candidate)
            if candidate.features <= target.features and path.exists():
                return KernelObject(dtype, candidate, path, facts, "shipped")
    facts = _facts(dtype, target, *(f"{name} {importlib.metadata.version(name)}" for name in ("numba", "llvmlite")))
    path = cache_folder() / _file_name(facts)
    return KernelObject(dtype, target, path, facts, "cached" if path.exists() else "to be compiled")


def read_object(path: Path, facts: dict[str, str]) -> tuple[dict[str, Any], bytes]:
    """Header and ELF of an object file. Raises KernelError unless it is whole and what it should be."""
    first, _, elf = path.read_bytes().partition(b"\n")
    try:
        header = json.loads(first)
        entry, undefined, digest = header["entry"], header["undefined"], header["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise KernelError(f"{path}: not a kernel object") from error
    if any(header.get(name) != value for name, value in facts.items()):
        raise KernelError(f"{path}: kernels of other sources or for another CPU")
    if hashlib.sha256(elf).hexdigest() != digest or not isinstance(entry, str) or not isinstance(undefined, list):
        raise KernelError(f"{path}: damaged")
    return header, elf


def private_folder(folder: Path) -> bool:
    """Make a folder for this user alone; False where it cannot be written or belongs to others."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.stat()
    except OSError:
        return False
    private = state.st_uid == os.getuid() and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return private and os.access(folder, os.W_OK)


def compile_object(wanted: KernelObject) -> tuple[dict[str, Any], bytes]:
    """Compile in another process and keep the result, if the cache can be written. Raises KernelError."""
    print(f"nbgpt: compiling {wanted.dtype} kernels for {wanted.target.cpu}, once (about 10 s)", file=sys.stderr)
    keep = private_folder(wanted.path.parent)
    with tempfile.TemporaryDirectory(dir=wanted.path.parent if keep else None, prefix=".compiling-") as folder:
        made = Path(folder) / "kernels.o"
        command = [sys.executable, "-m", "nbgpt.compiler", wanted.dtype, "-o", str(made)]
        environment = {
            **os.environ,
            "NUMBA_CPU_NAME": wanted.target.cpu,
            "NUMBA_CPU_FEATURES": wanted.target.llvm_features,
            "PYTHONPATH": os.pathsep.join([str(_HERE.parent), os.environ.get("PYTHONPATH", "")]),
        }
        done = subprocess.run(
            [*command, "--facts", json.dumps(wanted.facts)],
            env=environment,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise KernelError(f"cannot compile the kernels: {reason[0]}")
        result = read_object(made, wanted.facts)
        if keep:
            made.replace(wanted.path)
        else:
            print(f"nbgpt: {wanted.path.parent} is not a private writable folder: kernels not kept", file=sys.stderr)
    return result


def _is_ours(path: Path) -> bool:
    state = path.stat()
    return state.st_uid in (os.getuid(), 0) and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@functools.cache
def load_kernels(dtype: str) -> Any:
    """The compiled entry `enter(cells, me, seen)` for one type of weights, compiling it if need be."""
    wanted = find_object(dtype)
    header: dict[str, Any] | None = None
    if wanted.state != "to be compiled" and _is_ours(wanted.path):
        with contextlib.suppress(KernelError, OSError):
            header, elf = read_object(wanted.path, wanted.facts)
    if header is None:
        header, elf = compile_object(wanted)
    return _link(header, elf)


def _link(header: dict[str, Any], elf: bytes) -> Any:
    """Put machine code into memory and return its entry as a ctypes function (which runs without the GIL)."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name in header["undefined"]:
        if name.startswith(("NRT_", "numba_")):  # Numba's run time, on error paths that kernels never take
            function = ctypes.pythonapi.Py_FatalError
        else:
            function = getattr(ctypes.pythonapi, name, None)  # Python's and the C library's, which it is linked to
        if function is None:
            raise KernelError(f"the kernels need {name}, which this system's C library lacks")
        llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(elf))
    engine.finalize_object()
    address = engine.get_function_address(header["entry"])
    enter = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)
    enter.engine = engine  # type: ignore[attr-defined]  # its memory must live as long as the function
    return enter
