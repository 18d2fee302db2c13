"""The record that the interpreter hands to compiled code: all of one forward pass in slots of eight bytes."""

from __future__ import annotations

import ctypes

JOBS, PARKED, QUIT, JOB, TURNS, INSIDE, STEPS = 0, 8, 16, 24, 25, 32, 40
"""Places in the cells of a team, int64, eight to a cache line: calls announced, threads asleep, whether to quit, the
address of the first Job and how many follow each other, threads at work, and the first step."""
REGIONS = 4
"""Parts of a step's items that threads begin with."""
STEP_CELLS = 8 * (REGIONS + 1)
"""Cells of a step of the forward pass, in cache lines of their own: items done, and items given out of each region."""
STEPS_OF_LAYER = 9
"""See `block` in kernels/forward.py."""
OTHER_STEPS = 5
"""Embedding, final LayerNorm, logits, sampling, scoring."""
CLOSED = 1 << 32
"""What is added to INSIDE, the number of threads at work, while no thread may enter."""
PROBE_READ, PROBE_MULTIPLY_ADD = 1, 2
"""What a job measures instead of running the model."""
PROBE_FLOATS = 1 << 18
"""Floats that an item of PROBE_READ reads: 1 MiB."""
PROBE_REPEATS = 1000
"""Tiles that an item of PROBE_MULTIPLY_ADD computes."""


MAX_TURNS = 16
"""Passes of one call at most."""


def n_cells(n_layer: int) -> int:
    """Cells of the steps of one pass."""
    return STEP_CELLS * (STEPS_OF_LAYER * n_layer + OTHER_STEPS)


_NUMBER, _POINTER, _FLOAT = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float

_SLOTS: dict[str, type] = {
    # the team
    "cells": _POINTER,  # int64: those of the team, moved so that STEPS is where the steps of this pass begin
    "n_threads": _NUMBER,
    # the model
    "n_layer": _NUMBER,
    "n_head": _NUMBER,
    "n_embd": _NUMBER,
    "n_inner": _NUMBER,
    "n_vocab": _NUMBER,
    "activation": _NUMBER,  # place in config.ACTIVATIONS
    "epsilon": _FLOAT,
    "weights": _POINTER,  # bytes of the native file
    "model_offsets": _POINTER,  # int64 [len(MODEL_TENSORS)], bytes from `weights`
    "layer_offsets": _POINTER,  # int64 [n_layer, len(LAYER_TENSORS)]
    "attention_scales": _POINTER,  # float32 [n_layer]
    # the rows
    "n_rows": _NUMBER,
    "ids": _POINTER,  # int32 [n_rows]
    "positions": _POINTER,  # int32 [n_rows]
    "tables": _POINTER,  # int32 [n_rows]: where in page_tables the sequence of a row begins
    "page_tables": _POINTER,  # int32: the pages of each sequence, in order
    "n_logits": _NUMBER,
    "logit_rows": _POINTER,  # int32 [n_logits]
    "n_sampled": _NUMBER,  # of the first rows of logits, how many draw an id
    "sampling": _POINTER,  # float64 [n_sampled, 4]: temperature, top_k, top_p, uniform number
    "sampled": _POINTER,  # int32 [n_sampled]: the ids that were drawn
    "n_targets": _NUMBER,  # of the first rows of logits, how many are scored
    "targets": _POINTER,  # int32 [n_targets]: the id that came next
    "surprises": _POINTER,  # float64 [n_targets]: its negative log-likelihood
    "first_layer": _NUMBER,
    "last_layer": _NUMBER,  # exclusive
    "is_observed": _NUMBER,  # 1: fill the buffers for those who want to see them, however few rows there are
    # buffers, float32 with strides padded to whole groups; zero beyond what is used
    "x": _POINTER,  # [n_rows, n_embd]: the residual stream
    "ln_1": _POINTER,  # [n_rows, n_embd]: what the attention reads
    "ln_2": _POINTER,  # [n_rows, n_embd]: what the feed-forward layer reads; at the end, what the logits read
    "qkv": _POINTER,  # [n_rows, 3 n_embd]
    "attended": _POINTER,  # [n_rows, n_embd]
    "inner": _POINTER,  # [n_rows, n_inner]
    "projected": _POINTER,  # [n_rows, n_embd]
    "logits": _POINTER,  # [n_logits * planes, n_vocab]: row i in row i * planes, see LOGIT_PLANES
    "buckets": _POINTER,  # float64 [n_threads, SAMPLING_BUCKETS]
    "candidates": _POINTER,  # [n_threads, candidates_stride]: what sampling weighs
    "candidates_stride": _NUMBER,
    "scratch": _POINTER,  # [n_threads, scratch_stride]
    "scratch_stride": _NUMBER,
    "packed": _POINTER,  # bytes: the row tiles that a matmul reads
    "packed_sums": _POINTER,
    "packed_scales": _POINTER,
    "states": _POINTER,  # [FEW_ROWS, n_head, max_spans, value_dim + 16]: see kernels/attention.py
    "max_spans": _NUMBER,
    "pages": _POINTER,  # float32 or float16: the KV cache
    "kv_halves": _NUMBER,  # 1: the cache holds float16
    # no forward pass, but a measurement of the machine: see kernels/roofline.py
    "probe": _NUMBER,  # PROBE_READ, PROBE_MULTIPLY_ADD, or 0 for a forward pass
    "probe_items": _NUMBER,
    "probe_data": _POINTER,  # float32
    "probe_flop": _NUMBER,  # set by compiled code: floating-point operations of an item
}


class Job(ctypes.Structure):
    """One forward pass; pointers are addresses of NumPy arrays that the caller keeps alive.

    Jobs that lie one behind the other are the passes of one call: each finds its ids where the one before has drawn
    them.
    """

    _fields_ = list(_SLOTS.items())
    _pack_ = 8


SLOT = {name: getattr(Job, name).offset // 8 for name in _SLOTS}
"""Place of each field, in units of eight bytes."""


def _matrix(name: str) -> tuple[str, ...]:
    return name + ".weight", name + ".weight.scale", name + ".weight.offset"


def _layer_norm(name: str) -> tuple[str, ...]:
    return name + ".weight", name + ".bias"


MODEL_TENSORS = (*_matrix("wte"), "wpe.weight", *_layer_norm("ln_f"), *_matrix("lm_head"))
LAYER_TENSORS = (
    *_layer_norm("ln_1"),
    *_matrix("attn.c_attn"),
    "attn.c_attn.bias",
    *_matrix("attn.c_proj"),
    "attn.c_proj.bias",
    *_layer_norm("ln_2"),
    *_matrix("mlp.c_fc"),
    "mlp.c_fc.bias",
    *_matrix("mlp.c_proj"),
    "mlp.c_proj.bias",
)
"""Tensors in the order of the tables of offsets; one that a model does not have has offset 0 and is not read."""
