"""The addresses of weight tensors: functions (job, layer) -> pointers into the native file.

`layer` is ignored for a tensor that belongs to no layer.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from ..abi.job import LAYER_TENSORS, MODEL_TENSORS
from ..simd.codegen import I8, I64
from .fields import BYTES, load_slot


def _address(builder: Any, name: str, job: Any, layer: Any) -> Any:
    """Emit weights + model_offsets[tensor], or weights + layer_offsets[layer, tensor]."""
    if name in LAYER_TENSORS:
        first = builder.mul(layer, I64(len(LAYER_TENSORS)))
        table, index = "layer_offsets", builder.add(first, I64(LAYER_TENSORS.index(name)))
    else:
        table, index = "model_offsets", I64(MODEL_TENSORS.index(name))
    offset = builder.load(builder.gep(load_slot(builder, job, table, I64.as_pointer()), [index]))
    return builder.gep(load_slot(builder, job, "weights", I8.as_pointer()), [offset])


def vector(name: str) -> Any:
    """A function (job, layer) -> float32 pointer to a bias, a LayerNorm gain or the rows of `wpe`."""
    result = types.CPointer(types.float32)

    @intrinsic
    def floats(typing: Any, job: Any, layer: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.bitcast(_address(builder, name, *args), context.get_value_type(result))

        return result(BYTES, types.int64), generate

    return floats


def matrix(name: str) -> Any:
    """A function (job, layer) -> byte pointers (values, scales, offsets) of a matrix."""
    result = types.UniTuple(BYTES, 3)

    @intrinsic
    def parts(typing: Any, job: Any, layer: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointers = [_address(builder, f"{name}.weight{part}", *args) for part in ("", ".scale", ".offset")]
            return context.make_tuple(builder, result, pointers)

        return result(BYTES, types.int64), generate

    return parts
