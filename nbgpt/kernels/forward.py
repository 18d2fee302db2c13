"""The forward pass of GPT-2: token ids in, logits out.

Each function make_... returns the phases of one part of the model, in order; a phase is a parallel loop (phases.py) and
its number follows from its place. `make_linear` is given what its input rows are (`source`) and what completes its
output (`then`): LayerNorms are computed while rows are packed, residual additions while the product is in the cache.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners";
https://github.com/openai/gpt-2/blob/master/src/model.py. tests/reference.py is the same in NumPy.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from numba import types

from ..abi.layout import LANES
from ..simd import at, kernel
from .amx import HEAD_MATMULS, MATMULS
from .fields import (
    first_part,
    ids,
    inner,
    last_part,
    ln_1,
    ln_2,
    logits,
    n_embd,
    n_inner,
    n_layer,
    n_logits,
    n_rows,
    n_vocab,
    positions,
    projected,
    qkv,
    x,
)
from .linear import activate_inner, inner_row, logit_row, make_add_planes, make_linear, make_norm, make_residual_add
from .multi_head import append_to_cache, attention, merged_heads, n_qkv
from .next_token import make_sample, make_score
from .phases import in_order, make_phase
from .rows import padded, stride_of
from .tensors import matrix, vector
from .token_embedding import EMBEDS


def make_embedding(dtype: str) -> list[Any]:
    """x = wte[id] + wpe[position]."""
    embed_row, group = EMBEDS[dtype], MATMULS[dtype].group
    wte, wpe = matrix("wte"), vector("wpe.weight")

    @kernel
    def embed(job, layer, row, thread):
        token, size = types.int64(ids(job)[row]), n_embd(job)
        position = at(wpe(job, layer), types.int64(positions(job)[row]) * padded(size, LANES))
        out = at(x(job), row * stride_of(size))
        embed_row(out, token, position, wte(job, layer), size, padded(size, group))
        for k in range(size, stride_of(size)):
            out[k] = types.float32(0)  # a previous pass that overflowed may have left NaN here

    return [make_phase(n_rows, embed)]


def make_attention(dtype: str) -> list[Any]:
    """x += attn.c_proj(attention(attn.c_attn(ln_1(x))))."""
    linear = functools.partial(make_linear, MATMULS[dtype], n_rows)
    return [
        *linear(make_norm("ln_1", ln_1), "attn.c_attn", (n_embd, n_qkv), qkv, then=append_to_cache),
        attention,
        *linear(merged_heads, "attn.c_proj", (n_embd, n_embd), projected, then=make_residual_add("attn.c_proj.bias")),
    ]


def make_mlp(dtype: str) -> list[Any]:
    """x += mlp.c_proj(gelu(mlp.c_fc(ln_2(x))))."""
    linear = functools.partial(make_linear, MATMULS[dtype], n_rows)
    return [
        *linear(make_norm("ln_2", ln_2), "mlp.c_fc", (n_embd, n_inner), inner, then=activate_inner),
        *linear(inner_row, "mlp.c_proj", (n_inner, n_embd), projected, then=make_residual_add("mlp.c_proj.bias")),
    ]


def make_head(dtype: str) -> list[Any]:
    """logits = lm_head(ln_f(x)) of the rows that need them; then a sampled id, or the NLL of a target, for some."""
    matmul = HEAD_MATMULS[dtype]
    ln_f = make_norm("ln_f", ln_2, logit_row)
    lm_head = make_linear(
        matmul, n_logits, ln_f, "lm_head", (n_embd, n_vocab), logits, then=make_add_planes(matmul.planes)
    )
    return [*lm_head, make_sample(matmul.planes), make_score(matmul.planes)]


@dataclass(frozen=True)
class Forward:
    """The compiled forward pass, and how many phases it has."""

    run: Any  # (job, thread): one thread's share
    phases_of_layer: int
    other_phases: int


def make_forward(block_dtype: str, head_dtype: str) -> Forward:
    """The forward pass for one type of block weights and one type of embedding and LM head."""
    embedding, attention, mlp, head = (
        make_embedding(head_dtype),
        make_attention(block_dtype),
        make_mlp(block_dtype),
        make_head(head_dtype),
    )
    embed, run_attention, run_mlp, run_head = map(in_order, (embedding, attention, mlp, head))
    before_block, before_mlp, phases_of_layer = len(embedding), len(attention), len(attention) + len(mlp)

    @kernel
    def run(job, thread):
        zero, first, last = types.int64(0), first_part(job), last_part(job)
        if first == 0:
            embed(job, zero, zero, thread)
        for layer in range(n_layer(job)):
            phase = before_block + phases_of_layer * layer
            if first <= 2 * layer + 1 < last:
                run_attention(job, layer, phase, thread)
            if first <= 2 * layer + 2 < last:
                run_mlp(job, layer, phase + before_mlp, thread)
        if last == 2 * n_layer(job) + 2:
            run_head(job, zero, before_block + phases_of_layer * n_layer(job), thread)

    return Forward(run, phases_of_layer, before_block + len(head))
