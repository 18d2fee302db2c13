"""Typed pointers: kernels address weights and buffers by base and offset, as C does."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def at(typing: Any, pointer: Any, index: Any) -> Any:
    """pointer + index elements."""

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


@intrinsic
def pointer_in(typing: Any, counters: Any, index: Any, dtype: Any) -> Any:
    """The address in counters[index], an int64, as a pointer to dtype."""
    result = types.CPointer(dtype.dtype)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value_type = context.get_value_type(result)
        return builder.load(builder.bitcast(builder.gep(args[0], [args[1]]), value_type.as_pointer()))

    return result(counters, types.intp, dtype), generate


@intrinsic(prefer_literal=True)
def stack_bytes(typing: Any, n: Any) -> Any:
    """Pointer to n bytes of the stack, n a constant, aligned to a cache line: the kernel's own until it returns."""
    result = types.CPointer(types.uint8)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        with builder.goto_entry_block():  # Numba's own way to do this fills them with zeros
            space = builder.alloca(ir.ArrayType(ir.IntType(8), n.literal_value))
        space.align = 64
        return builder.bitcast(space, context.get_value_type(result))

    return result(n), generate


@intrinsic
def data(typing: Any, array: Any) -> Any:
    """Pointer to the first element of a C-contiguous array: tests pass NumPy arrays to kernels by it."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate
