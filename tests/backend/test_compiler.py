"""What the compiler needs of Numba and llvmlite beyond their public interfaces: says which one a new version lacks.

That kernels compile, and to which instructions, is tested in test_kernel_cache.py and tests/abi/test_targets.py.
"""

import ast
import importlib
from functools import reduce
from pathlib import Path

import numba
import pytest

import nbgpt

PACKAGE = Path(nbgpt.__file__).parent
COMPILED = "a compiled C function"
CONTEXT = "numba.core.registry.cpu_target.target_context"
DOORS = [
    ("numba.core.codegen", "AOTCPUCodegen", "to translate kernels without loading them"),
    ("numba.core.codegen", "AOTCPUCodegen._library_class", "to give it a library that does not optimize"),
    ("numba.core.codegen", "AOTCPUCodegen._init", "to describe the CPU to compile for"),
    ("numba.core.codegen", "AOTCPUCodegen._create_empty_module", "to name the system to compile for"),
    ("numba.core.codegen", "AOTCodeLibrary.add_llvm_module", "to link the LLVM module of a function unoptimized"),
    ("numba.core.codegen", "AOTCodeLibrary.finalize", "to leave a library unoptimized"),
    ("numba.core.codegen", "AOTCodeLibrary._finalized", "to say that it is final nevertheless"),
    ("numba.core.config", "CPU_NAME", "to let Numba's own code generator describe this process's CPU"),
    ("numba.core.config", "CPU_FEATURES", "the same, and to describe that of the kernels while they are made"),
    ("numba.core.cgutils", "get_or_insert_function", "to call LLVM's intrinsics and the C library"),
    ("numba.extending", "intrinsic", "to write the operations of registers"),
    ("numba.extending", "lower_builtin", "to give registers Python's operators"),
    ("numba.extending", "type_callable", "to type them"),
    ("numba.extending", "register_model", "to make registers LLVM's vectors"),
    ("numba.extending", "models.PrimitiveModel", "the same"),
    (CONTEXT, "_internal_codegen", "to put the code generator of the compiler in its place"),
    (CONTEXT, "get_value_type", "to know LLVM's type of a register"),
    (CONTEXT, "get_dummy_value", "to return nothing from an operation"),
    (CONTEXT, "make_array", "to pass arrays to kernels in tests"),
    (CONTEXT, "make_tuple", "to return tuples of registers"),
    (CONTEXT, "_internal_codegen._llvm_module.triple", "to choose instructions and system calls by the architecture"),
    (CONTEXT, "_internal_codegen._tm", "which the compiler's code generator sets, as it makes no engine"),
    (CONTEXT, "_internal_codegen._target_data", "the same"),
    (CONTEXT, "_internal_codegen._data_layout", "the same"),
    (CONTEXT, "_internal_codegen.set_env", "to leave environments of Python out of an object"),
    (COMPILED, "_wrapper_name", "to find the entry in the object"),
    (COMPILED, "_library", "to link the kernels that the entry calls"),
    (COMPILED, "_library._linking_libraries", "the same"),
    (COMPILED, "_library._final_module.link_in", "the same"),
    (COMPILED, "_library.get_pointer_to_function", "to compile a C function without having its address"),
    ("llvmlite.binding", "initialize_all_targets", "to compile for another architecture than this one"),
    ("llvmlite.binding", "create_pipeline_tuning_options", "to choose LLVM's passes"),
    ("llvmlite.binding", "create_pass_builder", "to optimize the whole program at once"),
    ("llvmlite.binding", "PipelineTuningOptions.loop_vectorization", "to leave strided copies scalar"),
    ("llvmlite.binding", "TargetMachine.emit_object", "to make the object file"),
    ("llvmlite.binding", "TargetMachine.triple", "to name the system to compile for"),
    ("llvmlite.binding", "TargetMachine.target_data", "to lay out structures as the target does"),
]
"""(module or object, attribute, what it is needed for)"""


def _found(where: str) -> object:
    """The object in which an attribute is looked for."""
    if where == COMPILED:
        return numba.cfunc("int64(int64)")(lambda x: x)
    if where == CONTEXT:
        return importlib.import_module("numba.core.registry").cpu_target.target_context
    return importlib.import_module(where)


@pytest.mark.parametrize(("where", "attribute", "need"), DOORS, ids=[f"{where}.{name}" for where, name, _ in DOORS])
def test_numba_has(where, attribute, need):
    try:
        reduce(getattr, attribute.split("."), _found(where))
    except (ImportError, AttributeError) as error:
        pytest.fail(f"Numba {numba.__version__}: {where}.{attribute} is gone ({error}). nbgpt needs it {need}.")


def _sources() -> list[Path]:
    """The modules that import Numba."""
    return [PACKAGE / "backend/compiler.py", *PACKAGE.glob("simd/*.py"), *PACKAGE.glob("kernels/*.py")]


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_exit"  # of os


def test_every_private_door_is_in_the_list():
    used = {
        node.attr
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and _is_private(node.attr)
    }
    assert used, "the compiler uses at least the module of a library"
    assert used <= {part for _, attribute, _ in DOORS for part in attribute.split(".")}
