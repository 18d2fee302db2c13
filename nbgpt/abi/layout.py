"""Memory layout of weights, activations and the KV cache: the constants that quantization and kernels share."""

LANES = 16
"""Outputs of a panel: the lanes of 32 bits in a register."""
PANELS = 2
"""Panels that a matmul computes together; the outputs of a matrix are padded with zeros to whole pairs of panels."""
ROW_TILE = 16
"""Rows of activations that are packed together, at most: see the heights of kernels/matmul.py."""
FEW_ROWS = 2
"""With at most this many rows, each thread prepares the inputs of a linear layer for itself."""
GROUP_INT8 = 64
"""Inputs that share a scale, in int8 matrices."""
GROUP_INT4 = 32
"""Inputs that share a scale and an offset, in int4 matrices."""
BLOCK_BFLOAT16 = 32
"""Inputs whose products are summed before they are added to the rest, in bfloat16 matrices: those of an AMX tile."""
LEAST_WEIGHT, LEAST_ACTIVATION = 2.0**-64, 2.0**-48
"""In a bfloat16 product smaller magnitudes count as 0, so that none of its sums is denormal: see kernels/matmul.py."""
STRIDE = 64
"""Rows of activations are padded to a multiple of this many floats: whole groups of every weight type."""
PAGE = 64
"""Positions of a page of the KV cache: the attention kernel's tile of keys."""
SPAN_PAGES = 4
"""Pages of a span: attention computes one softmax state a span, and different threads can take different spans."""
QUERY_TILE = 6
"""Queries at consecutive positions that attention processes together."""
SAMPLING_BUCKETS = 2048
"""Buckets of the radix search for a top-k or top-p threshold."""
SAMPLING_BLOCK = 64
"""Logits that top-k examines, or skips, together."""


# kernels/rows.py compiles these two for kernels, so neither calls another function.


def ceil_div(n: int, size: int) -> int:
    """n / size, rounded up: how many parts of a size n needs."""
    return (n + size - 1) // size


def padded(n: int, multiple: int) -> int:
    """n rounded up to a multiple."""
    return (n + multiple - 1) // multiple * multiple


def sampling_floats(n: int) -> int:
    """Floats of scratch to sample one of n ids: weights, ids, and the largest weight of each block."""
    return 2 * (n + 2 * LANES) + padded(ceil_div(n, SAMPLING_BLOCK), LANES)


def attention_floats(rows: int, head_dim: int) -> int:
    """Floats of scratch for `rows` queries: the queries, two states each, and the weights of a span."""
    return rows * (head_dim + 2 * (padded(head_dim, LANES) + LANES) + SPAN_PAGES * PAGE)


FLOATS = ("float32", "float16", "bfloat16")
"""Types of weights that have no scales."""
HEAD_DTYPE = {**{dtype: dtype for dtype in FLOATS}, "int8": "int8", "int4": "int8"}
"""Type of the embedding and the LM head by the type of the blocks: int4 models keep both in int8."""
LOGIT_PLANES = {**dict.fromkeys(FLOATS, 1), "int8": 2}
"""int8 rows that represent one input row of the LM head, by its type: high and low byte of 16 bits with int8."""
GROUP = {"float32": 1, "float16": 1, "bfloat16": BLOCK_BFLOAT16, "int8": GROUP_INT8, "int4": GROUP_INT4}
"""The inputs of a matrix are padded with zeros to a multiple of this many, by its type."""
