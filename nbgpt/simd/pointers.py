"""Typed pointers: kernels address the mapped weights and their buffers by base and offset, as C would."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def at(typing: Any, pointer: Any, index: Any) -> Any:
    """The pointer moved by index elements."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.intp), generate


@intrinsic
def cast(typing: Any, pointer: Any, dtype: Any) -> Any:
    """The same address as a pointer to another type."""
    result = types.CPointer(dtype.dtype)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(result))

    return result(pointer, dtype), generate


def _slot(context: Any, builder: Any, record: Any, slot: Any, numba_type: Any) -> Any:
    """Load the value that lies in an 8-byte slot of a record."""
    value_type = context.get_value_type(numba_type)
    slots = builder.bitcast(record, ir.IntType(64).as_pointer())
    return builder.load(builder.bitcast(builder.gep(slots, [slot]), value_type.as_pointer()))


@intrinsic
def pointer_in(typing: Any, record: Any, slot: Any, dtype: Any) -> Any:
    """The pointer to dtype in the given 8-byte slot of a record."""
    result = types.CPointer(dtype.dtype)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _slot(context, builder, args[0], args[1], result)

    return result(record, types.intp, dtype), generate


@intrinsic
def int64_in(typing: Any, record: Any, slot: Any) -> Any:
    """The whole number in the given 8-byte slot of a record."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _slot(context, builder, args[0], args[1], types.int64)

    return types.int64(record, types.intp), generate


@intrinsic
def float32_in(typing: Any, record: Any, slot: Any) -> Any:
    """The float32 at the start of the given 8-byte slot of a record."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _slot(context, builder, args[0], args[1], types.float32)

    return types.float32(record, types.intp), generate


@intrinsic
def data(typing: Any, array: Any) -> Any:
    """Pointer to the first element of a C-contiguous array: how tests hand NumPy arrays to a kernel."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate
