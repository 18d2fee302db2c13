"""Reading a `Job` in compiled code: a function a kind of field, so that phases speak of rows and matrices."""

from __future__ import annotations

from typing import Any

from numba import types

from ..job import LAYER_TENSORS, MODEL_TENSORS, SLOT
from ..layout import LANES, PAGE, PANELS
from ..simd import at, cast, int64_in, kernel, pointer_in

_WEIGHTS, _LAYER_OFFSETS, _MODEL_OFFSETS = SLOT["weights"], SLOT["layer_offsets"], SLOT["model_offsets"]
_N_LAYER_TENSORS = len(LAYER_TENSORS)
_N_HEAD, _N_EMBD, _N_LAYER = SLOT["n_head"], SLOT["n_embd"], SLOT["n_layer"]
_PAGES, _TABLES, _PAGE_TABLES = SLOT["pages"], SLOT["tables"], SLOT["page_tables"]
_PACKED, _PACKED_SUMS, _PACKED_SCALES = SLOT["packed"], SLOT["packed_sums"], SLOT["packed_scales"]


@kernel
def round_up(n, multiple):
    """n rounded up to a multiple."""
    return (n + multiple - 1) // multiple * multiple


def number_field(name: str) -> Any:
    """A kernel that reads a whole number of the job."""
    slot = SLOT[name]
    return kernel(lambda job: int64_in(job, slot))


def pointer_field(name: str, dtype: Any) -> Any:
    """A kernel that reads a pointer of the job."""
    slot = SLOT[name]
    return kernel(lambda job: pointer_in(job, slot, dtype))


def layer_tensor(name: str) -> Any:
    """A kernel (job, layer) -> the bytes of a tensor of a layer."""
    place = LAYER_TENSORS.index(name)

    @kernel
    def tensor(job, layer):
        offsets = pointer_in(job, _LAYER_OFFSETS, types.int64)
        return at(pointer_in(job, _WEIGHTS, types.uint8), offsets[layer * _N_LAYER_TENSORS + place])

    return tensor


def model_tensor(name: str) -> Any:
    """A kernel (job, layer) -> the bytes of a tensor that belongs to no layer."""
    place = MODEL_TENSORS.index(name)

    @kernel
    def tensor(job, layer):
        return at(pointer_in(job, _WEIGHTS, types.uint8), pointer_in(job, _MODEL_OFFSETS, types.int64)[place])

    return tensor


def matrix(name: str) -> Any:
    """A kernel (job, layer) -> (values, scales, offsets) of a matrix."""
    of = layer_tensor if name + ".weight" in LAYER_TENSORS else model_tensor
    values, scales, offsets = (of(name + ".weight" + part) for part in ("", ".scale", ".offset"))
    return kernel(lambda job, layer: (values(job, layer), scales(job, layer), offsets(job, layer)))


def floats(tensor: Any) -> Any:
    """The same tensor as float32."""
    return kernel(lambda job, layer: cast(tensor(job, layer), types.float32))
