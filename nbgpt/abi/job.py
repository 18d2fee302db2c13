"""The record of one forward pass that Python hands to compiled code, and the counters that the threads share.

Every slot of a `Job` has eight bytes and is declared once, in `SLOT_TYPES`: kernels/fields.py makes the accessors of
compiled code from the same table.
"""

from __future__ import annotations

import ctypes
from typing import Any

# --- Counters: int64, written by atomic operations, eight to a cache line ---------------------------------------------

CALLS = 0
"""Index of the number of calls announced so far; threads without work wait for it to change."""
SLEEPING = 8
"""Index of the number of threads that sleep."""
QUIT = 16
"""Index of the flag that ends the threads."""
FIRST_JOB, N_JOBS = 24, 25
"""Indices of the address of a call's first Job and of the number of consecutive Jobs."""
WORKING = 32
"""Index of the number of threads that work on the call."""
CLOSED = 1 << 32
"""Added to WORKING while no thread may start on the call."""
PHASES = 40
"""Index of the counters of the first phase."""
REGIONS = 4
"""Parts of a phase's work items; threads start in different ones."""
COUNTERS_OF_PHASE = 8 * (REGIONS + 1)
"""Of each phase: work items done, then work items claimed of each region, each in a cache line of its own."""

# --- The job ----------------------------------------------------------------------------------------------------------

MAX_JOBS = 16
"""Jobs of one call at most: the steps of a multi-step decode."""

SLOT_TYPES: dict[str, str] = {
    # the thread pool
    "counters": "int64*",  # moved so that the phases of this job begin at PHASES
    "n_threads": "int64",
    # the model
    "n_layer": "int64",
    "n_head": "int64",
    "n_embd": "int64",
    "n_inner": "int64",
    "n_vocab": "int64",
    "n_choices": "int64",  # the first n_choices ids may be sampled: ids after them have no token
    "activation": "int64",  # index in config.ACTIVATIONS
    "epsilon": "float32",  # of every LayerNorm
    "weights": "uint8*",  # the native file
    "model_offsets": "int64*",  # [len(MODEL_TENSORS)], bytes from `weights`
    "layer_offsets": "int64*",  # [n_layer, len(LAYER_TENSORS)], bytes from `weights`
    "attention_scales": "float32*",  # [n_layer]
    # the rows
    "n_rows": "int64",
    "ids": "int32*",  # [n_rows]
    "positions": "int32*",  # [n_rows]
    "table_starts": "int32*",  # [n_rows]: index in page_tables where the pages of the row's sequence begin
    "page_tables": "int32*",  # page numbers of each sequence, in order
    "n_logits": "int64",
    "logit_rows": "int32*",  # [n_logits]: rows that need logits
    "n_sampled": "int64",  # the first n_sampled rows of logits each sample a token
    "sampling": "float64*",  # [n_sampled, 4]: temperature, top_k, top_p, uniform number in [0, 1)
    "sampled": "int32*",  # [n_sampled]: the sampled ids
    "n_targets": "int64",  # the first n_targets rows of logits each score a target
    "targets": "int32*",  # [n_targets]: ids that follow in the text
    "nll": "float64*",  # [n_targets]: negative log-likelihood of each target, nats
    "first_part": "int64",  # 0: the embedding; 1 + 2 l: attention of layer l; 2 + 2 l: its MLP; then the LM head
    "last_part": "int64",  # exclusive
    "is_observed": "int64",  # 1: fill every buffer, even for few rows
    # buffers; each row is padded with zeros to a multiple of STRIDE floats
    "x": "float32*",  # [n_rows, n_embd]: the residual stream
    "ln_1": "float32*",  # [n_rows, n_embd]: input of attn.c_attn
    "ln_2": "float32*",  # [n_rows, n_embd]: input of mlp.c_fc; after the layers, of lm_head
    "qkv": "float32*",  # [n_rows, 3 n_embd]
    "attended": "float32*",  # [n_rows, n_embd]: output of the heads
    "inner": "float32*",  # [n_rows, n_inner]
    "projected": "float32*",  # [n_rows, n_embd]: output of attn.c_proj and of mlp.c_proj
    "logits": "float32*",  # [n_logits * planes, n_vocab]: row i is row i * planes, see LOGIT_PLANES
    "buckets": "float64*",  # [n_threads, SAMPLING_BUCKETS]
    "candidates": "float32*",  # [n_threads, candidates_stride]: softmax weights and ids while a token is sampled
    "candidates_stride": "int64",
    "scratch": "float32*",  # [n_threads, scratch_stride]
    "scratch_stride": "int64",
    "packed": "uint8*",  # the row tiles that a matmul reads: see kernels/matmul.py
    "packed_sums": "uint8*",
    "packed_scales": "uint8*",
    "states": "float32*",  # [FEW_ROWS, n_head, max_spans, value_dim + 16]: see kernels/attention.py
    "max_spans": "int64",
    "pages": "uint8*",  # the KV cache, float32 or float16
    "kv_is_float16": "int64",
    # a measurement instead of a forward pass: see kernels/roofline.py
    "probe": "int64",  # PROBE_READ, PROBE_MULTIPLY_ADD, or 0 for a forward pass
    "probe_items": "int64",
    "probe_data": "float32*",
    "probe_flop": "int64",  # written by compiled code: floating-point operations of a work item
}
"""C type of each slot by name, in order; a * is a pointer to an array, with its shape in the comment."""

PROBE_READ, PROBE_MULTIPLY_ADD = 1, 2
"""What a probe measures."""
PROBE_FLOATS = 1 << 18
"""Floats that a work item of PROBE_READ reads: 1 MiB."""
PROBE_REPEATS = 1000
"""Tiles that a work item of PROBE_MULTIPLY_ADD computes."""

_NUMBERS: dict[str, type[Any]] = {"int64": ctypes.c_int64, "float32": ctypes.c_float}


class Job(ctypes.Structure):
    """One forward pass; a pointer is the address of a NumPy array that the caller keeps alive.

    Consecutive jobs form one multi-step call: each reads the ids that the previous one sampled.
    """

    _fields_ = [(name, _NUMBERS.get(c_type, ctypes.c_void_p)) for name, c_type in SLOT_TYPES.items()]
    _pack_, _layout_ = 8, "ms"  # which Python 3.14 wants to be named where there is a _pack_


SLOT = {name: getattr(Job, name).offset // 8 for name in SLOT_TYPES}
"""Index of each slot, in units of eight bytes."""

# --- The tensors of the native file that kernels read -----------------------------------------------------------------


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
"""Tensors in the order of the tables of offsets; a tensor that the model lacks has offset 0 and is not read."""
