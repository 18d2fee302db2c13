"""What the phases of a pass read of its job: the fields are functions of it, `n_embd(job)`."""

from __future__ import annotations

from numba import types

from ..abi.layout import FEW_ROWS, STRIDE
from ..simd import kernel
from .tensors import number_field, pointer_field, round_up

cells = pointer_field("cells", types.int64)
n_threads = number_field("n_threads")
n_rows = number_field("n_rows")
n_embd = number_field("n_embd")
n_inner = number_field("n_inner")
n_head = number_field("n_head")
n_layer = number_field("n_layer")
n_vocab = number_field("n_vocab")
activation = number_field("activation")
positions = pointer_field("positions", types.int32)
tables = pointer_field("tables", types.int32)
page_tables = pointer_field("page_tables", types.int32)
x = pointer_field("x", types.float32)
qkv = pointer_field("qkv", types.float32)
inner = pointer_field("inner", types.float32)
projected = pointer_field("projected", types.float32)
attended = pointer_field("attended", types.float32)
logits = pointer_field("logits", types.float32)
first_layer, last_layer = number_field("first_layer"), number_field("last_layer")
_is_observed = number_field("is_observed")


@kernel
def stride_of(n):
    """Floats between rows of n."""
    return round_up(n, STRIDE)


@kernel
def are_few(job, rows):
    """Are there so few rows that each thread does best to prepare them all for itself, and not to wait for another?

    Then the buffers between the operations are not filled, so not if somebody wants to see them.
    """
    return rows <= FEW_ROWS and _is_observed(job) == 0


@kernel
def place_of(row, copy):
    """Where the row of a copy lies in a buffer; copy 0 is everybody's, few rows have one for each thread."""
    return copy * FEW_ROWS + row
