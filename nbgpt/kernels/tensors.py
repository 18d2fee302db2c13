"""Reading a `Job` in compiled code: a function a kind of field, so that phases speak of rows and matrices.

Most are intrinsics, since a kernel of its own costs Numba ten milliseconds and there are dozens of fields.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from ..abi.job import LAYER_TENSORS, MODEL_TENSORS, SLOT
from ..simd import cast, kernel
from ..simd.codegen import I8, I64

_BYTES = types.CPointer(types.uint8)


@kernel
def round_up(n, multiple):
    """n rounded up to a multiple."""
    return (n + multiple - 1) // multiple * multiple


def _slot(builder: Any, job: Any, name: str, kind: Any) -> Any:
    """Load what lies in a slot of the job."""
    place = builder.gep(job, [I64(8 * SLOT[name])])
    return builder.load(builder.bitcast(place, kind.as_pointer()))


def _tensor(builder: Any, name: str, job: Any, layer: Any) -> Any:
    """The address of a tensor: of the given layer, or of the model if it belongs to no layer."""
    if name in LAYER_TENSORS:
        first = builder.mul(layer, I64(len(LAYER_TENSORS)))
        table, place = "layer_offsets", builder.add(first, I64(LAYER_TENSORS.index(name)))
    else:
        table, place = "model_offsets", I64(MODEL_TENSORS.index(name))
    offset = builder.load(builder.gep(_slot(builder, job, table, I64.as_pointer()), [place]))
    return builder.gep(_slot(builder, job, "weights", I8.as_pointer()), [offset])


def _field(name: str, result: Any) -> Any:
    @intrinsic
    def field(typing: Any, job: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _slot(builder, args[0], name, context.get_value_type(result))

        return result(_BYTES), generate

    return field


def number_field(name: str) -> Any:
    """A function (job) -> a whole number of the job."""
    return _field(name, types.int64)


def float_field(name: str) -> Any:
    """A function (job) -> a float32 of the job."""
    return _field(name, types.float32)


def pointer_field(name: str, dtype: Any) -> Any:
    """A function (job) -> a pointer of the job."""
    return _field(name, types.CPointer(dtype))


def layer_tensor(name: str) -> Any:
    """A function (job, layer) -> the bytes of a tensor of a layer."""

    @intrinsic
    def tensor(typing: Any, job: Any, layer: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _tensor(builder, name, *args)

        return _BYTES(_BYTES, types.int64), generate

    return tensor


model_tensor = layer_tensor
"""A function (job, layer) -> the bytes of a tensor that belongs to no layer."""


def matrix(name: str) -> Any:
    """A function (job, layer) -> (values, scales, offsets) of a matrix."""
    result = types.UniTuple(_BYTES, 3)

    @intrinsic
    def tensors(typing: Any, job: Any, layer: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            parts = (_tensor(builder, name + ".weight" + part, *args) for part in ("", ".scale", ".offset"))
            return context.make_tuple(builder, result, list(parts))

        return result(_BYTES, types.int64), generate

    return tensors


def floats(tensor: Any) -> Any:
    """The same tensor as float32."""
    return kernel(lambda job, layer: cast(tensor(job, layer), types.float32))
