"""The slots of a `Job` as functions of compiled code: `from .fields import n_embd`, then `n_embd(job)`.

Any slot of abi/job.py can be imported; the table there says its type, an int64, a float32 or a pointer. `job` is a
pointer to the bytes of the record. Accessors are intrinsics, because a kernel costs Numba ten milliseconds to compile.
"""

from __future__ import annotations

import functools
from typing import Any

from numba import types
from numba.extending import intrinsic

from ..abi.job import SLOT, SLOT_TYPES
from ..simd.codegen import I64

BYTES = types.CPointer(types.uint8)


def load_slot(builder: Any, job: Any, name: str, llvm_type: Any) -> Any:
    """Emit the load of a slot."""
    address = builder.gep(job, [I64(8 * SLOT[name])])
    return builder.load(builder.bitcast(address, llvm_type.as_pointer()))


def _type_of(name: str) -> Any:
    c_type = SLOT_TYPES[name]
    element = getattr(types, c_type.removesuffix("*"))
    return types.CPointer(element) if c_type.endswith("*") else element


@functools.cache
def _accessor(name: str) -> Any:
    result = _type_of(name)

    @intrinsic
    def field(typing: Any, job: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return load_slot(builder, args[0], name, context.get_value_type(result))

        return result(BYTES), generate

    return field


def __getattr__(name: str) -> Any:
    if name not in SLOT_TYPES:
        raise AttributeError(f"abi/job.py has no slot {name!r}")
    return _accessor(name)
