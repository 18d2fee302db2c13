"""Typed pointers: kernels address the mapped weights and their buffers by base and offset, as C would."""

from __future__ import annotations

from typing import Any

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


@intrinsic
def pointer_in(typing: Any, cells: Any, index: Any, dtype: Any) -> Any:
    """The pointer to dtype whose address stands in cells[index], an int64."""
    result = types.CPointer(dtype.dtype)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value_type = context.get_value_type(result)
        return builder.load(builder.bitcast(builder.gep(args[0], [args[1]]), value_type.as_pointer()))

    return result(cells, types.intp, dtype), generate


@intrinsic
def data(typing: Any, array: Any) -> Any:
    """Pointer to the first element of a C-contiguous array: how tests hand NumPy arrays to a kernel."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate
