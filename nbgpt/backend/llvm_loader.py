"""Loads an object of kernels with LLVM, whose linker knows the object files of every system and CPU.

Loading LLVM takes 20 ms and 50 MiB of memory, so `elf_loader.py` comes first where it can do it.
"""

from __future__ import annotations

import ctypes
from typing import Any

from . import parking


def link(machine_code: bytes, entry: str) -> Any:
    """The function `entry(void *, int64)` of an object, for ctypes; it runs without the interpreter's lock."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    has_futex = not parking.is_needed()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly("" if has_futex else parking.SYSCALL), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    if not has_futex:
        parking.begin(engine)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(engine.get_function_address(entry))
    function.engine = engine  # type: ignore[attr-defined]  # its memory must live as long as the function
    return function
