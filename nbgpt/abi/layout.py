"""How matrices lie in the native file and activations in memory: the numbers that quantization and kernels share."""

LANES = 16
"""Outputs in a panel: as many as a register has lanes of 32 bits."""
PANELS = 2
"""Panels that are multiplied together; a matrix is padded with zeros to whole pairs of them."""
ROW_TILE = 12
"""Rows of activations that are packed together, see kernels/matmul.py."""
FEW_ROWS = 2
"""Rows that every thread packs for itself."""
GROUP_INT8 = 64
GROUP_INT4 = 32
"""Inputs that share a scale."""
STRIDE = 64
"""Rows of activations are padded to a multiple of this many floats: whole groups, whatever the type of the weights."""
PAGE = 64
"""Positions in a page of the KV cache, the attention kernel's tile of keys."""
SPAN_PAGES = 4
"""Pages that attention sees before it merges what they gave, and that threads may share a past by."""
QUERY_TILE = 6
"""Queries at consecutive positions that attention takes at once."""
SAMPLING_BUCKETS = 2048
"""Sums that the search for a top-k or top-p threshold keeps."""
SAMPLING_BLOCK = 64
"""Logits that top-k looks at, or passes over, together."""


def padded(n: int, multiple: int) -> int:
    """n rounded up to a multiple."""
    return -(-n // multiple) * multiple


def sampling_floats(n: int) -> int:
    """Scratch that drawing one of n ids needs: weights, ids, and each block's largest weight."""
    return 2 * (n + 2 * LANES) + padded(padded(n, SAMPLING_BLOCK) // SAMPLING_BLOCK, LANES)


def attention_floats(rows: int, head_dim: int) -> int:
    """Scratch that a tile of queries needs: themselves, two states each, and the weights of a span."""
    return rows * (head_dim + 2 * (padded(head_dim, LANES) + LANES) + SPAN_PAGES * PAGE)


HEAD_DTYPE = {"float32": "float32", "float16": "float16", "int8": "int8", "int4": "int8"}
"""Type of the token matrix by the type of the blocks: a 4-bit model keeps 8 bits where words come in and go out."""
LOGIT_PLANES = {"float32": 1, "float16": 1, "int8": 2}
"""Rows of 8-bit activations that make one of the logits' inputs, by the type of the token matrix."""
GROUP = {"float32": 1, "float16": 1, "int8": GROUP_INT8, "int4": GROUP_INT4}
"""Inputs are padded with zeros to a multiple of this many."""
