"""Compiles kernels to object files: the only module that makes Numba compile, in a process of its own.

    python -m nbgpt.backend.compiler int8 -o FILE

Numba only translates to LLVM here. The whole program is linked and optimized once, at the end; otherwise Numba would
optimize every kernel again in each of its callers. An object file is one line of JSON (the header: contents, target,
checksum) followed by ELF.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

from ..abi.job import SLOT
from ..abi.layout import HEAD_DTYPE


def translate(dtype: str) -> tuple[dict[str, Any], Any]:
    """The header's fields about the entry, and the unoptimized LLVM module, of the kernels for one type of weights."""
    from numba import cfunc, types

    _only_translate(target_machine())  # before kernels make Numba look for a code generator

    from ..kernels.entries import make_entries

    entries = make_entries(dtype, HEAD_DTYPE[dtype])
    run, serve = entries.run, entries.serve

    @cfunc(types.void(types.CPointer(types.int64), types.int64), error_model="numpy")
    def enter(counters, thread):
        if thread == 0:
            run(counters)
        else:
            serve(counters, thread)

    phases = {"phases_of_layer": entries.phases_of_layer, "other_phases": entries.other_phases}
    return {"entry": enter._wrapper_name, **phases}, _linked(enter._library)


def target_machine() -> Any:
    """LLVM's description of the CPU and the system to compile for, which need not be those of this process."""
    import llvmlite.binding as llvm

    from ..abi.targets import current_target

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = current_target()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.llvm_features, opt=3, jit=True
    )


def _only_translate(machine: Any) -> None:
    """Keep Numba from optimizing and loading each function, since none of them runs in this process."""
    from numba.core import codegen, config
    from numba.core.registry import cpu_target

    class Library(codegen.AOTCodeLibrary):
        def add_llvm_module(self, module: Any) -> None:
            self._final_module.link_in(module)

        def finalize(self) -> None:
            self._finalized = True

        def get_pointer_to_function(self, name: str) -> int:
            return 0

    class Codegen(codegen.AOTCPUCodegen):
        _library_class = Library

        def _init(self, llvm_module: Any) -> None:  # Numba's makes an engine to run code in, for this process's CPU
            self._tm, self._target_data, self._data_layout = machine, machine.target_data, str(machine.target_data)

        def _create_empty_module(self, name: str) -> Any:
            module = super()._create_empty_module(name)
            module.triple = machine.triple
            return module

        def set_env(self, name: str, env: Any) -> None:
            pass

    config.CPU_NAME = config.CPU_FEATURES = None  # what is replaced here is for this process's CPU
    cpu_target.target_context._internal_codegen = Codegen("nbgpt")


def _linked(library: Any) -> Any:
    """The module of a library, linked with those of all libraries that it calls."""
    libraries = [library]
    for caller in libraries:
        libraries += [called for called in dict.fromkeys(caller._linking_libraries) if called not in libraries]
    for called in libraries[1:]:
        library._final_module.link_in(called._final_module)
    library._final_module.verify()
    return library._final_module


def optimized(dtype: str) -> tuple[dict[str, Any], Any, Any]:
    """The header's fields about the entry, the optimized LLVM module, and LLVM's description of the target machine."""
    import llvmlite.binding as llvm

    entry, module = translate(dtype)
    machine = target_machine()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = False  # only strided copies are left, which it would turn into slow scatters
    passes = llvm.create_pass_builder(machine, options)
    for function in module.functions:
        if not function.is_declaration and function.name != entry["entry"]:
            function.linkage = "internal"
    passes.getModulePassManager().run(module, passes)
    return entry, llvm.parse_assembly(_with_frame_pointers(module)), machine


def _with_frame_pointers(module: Any) -> str:
    """The module's text with a frame pointer in every function.

    Without it LLVM does not align the stack, and spilled registers would straddle cache lines and pages.
    """
    kept = r'\1 "frame-pointer"="all" {'
    text, n_changed = re.subn(r"^(define .*) {$", kept, str(module), flags=re.MULTILINE)
    assert n_changed == sum(not function.is_declaration for function in module.functions)
    return text


def compile_object(dtype: str, facts: dict[str, Any]) -> bytes:
    """The object file of the kernels for one type of weights. facts: further fields of its header."""
    from ..abi.targets import current_target

    entry, module, machine = optimized(dtype)
    elf = machine.emit_object(module)
    target = current_target()
    compiled_for = {"target": [target.cpu, target.llvm_features]}
    header = {**facts, **entry, **compiled_for, "job": SLOT, "sha256": hashlib.sha256(elf).hexdigest()}
    return json.dumps(header).encode() + b"\n" + elf


def main() -> None:
    """Compile for one type of weights and write the object file."""
    parser = argparse.ArgumentParser(prog="python -m nbgpt.backend.compiler", description=__doc__.split("\n", 1)[0])
    parser.add_argument("dtype", choices=HEAD_DTYPE)
    parser.add_argument("-o", "--output", required=True, help="a file, or - for standard output")
    parser.add_argument("--facts", type=json.loads, default={}, help="JSON to keep in the header")
    options = parser.parse_args()
    gc.disable()  # a translation leaves little garbage, and the collector takes a tenth of the time
    made = compile_object(options.dtype, options.facts)
    if options.output == "-":  # not /dev/stdout, which is a link into /proc
        sys.stdout.buffer.write(made)
    else:
        Path(options.output).write_bytes(made)


def main_of_child() -> None:
    """`main`, in a process that ends when it reads the end of its input: its parent holds the other end of the pipe."""

    def wait_for_the_end() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    main()


if __name__ == "__main__":
    main()
