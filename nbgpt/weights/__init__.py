"""The native file of weights, and how float32 matrices become float16, bfloat16, int8 and int4.

May import: backend and what is below it.
Start with `native_file.py`; `quantize.py` and `bfloat16.py` define the types, `packing.py` their layout, `gptq.py`
calibrated rounding.
"""

from .classifier_head import BaseReference, ClassifierHead, Pooling, is_head, read_head, save_head
from .fingerprint import fingerprint
from .metadata import DTYPES
from .native_file import (
    CLOSED,
    ITEM_BYTES,
    LAYOUT,
    NUMPY,
    Weights,
    in_memory,
    is_native,
    load,
    matrix_shapes,
    native_shapes,
)
from .text import tokenizer_of

__all__ = [
    "CLOSED",
    "DTYPES",
    "ITEM_BYTES",
    "LAYOUT",
    "NUMPY",
    "BaseReference",
    "ClassifierHead",
    "Pooling",
    "Weights",
    "fingerprint",
    "in_memory",
    "is_head",
    "is_native",
    "load",
    "matrix_shapes",
    "native_shapes",
    "read_head",
    "save_head",
    "tokenizer_of",
]
