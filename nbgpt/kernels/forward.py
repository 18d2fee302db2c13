"""GPT-2 as compiled code: tokens in, logits out, by a team of threads.

Read `make_forward`, then `_make_block`. A function make_... chooses what depends on the type of the weights before
anything is compiled, and returns a kernel. `job` is the record of ../job.py, and its fields are functions of it:
`n_embd(job)`. Every phase is a numbered step of the pass, whose items the threads share: see linear.py.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from numba import types

from ..abi.job import JOB, OTHER_STEPS, QUIT, STEPS_OF_LAYER, TURNS, Job
from ..abi.layout import LANES
from ..simd import at, atomic_load, kernel, pointer_in
from .fields import (
    cells,
    first_layer,
    inner,
    last_layer,
    logits,
    n_embd,
    n_inner,
    n_layer,
    n_rows,
    n_vocab,
    positions,
    projected,
    qkv,
    stride_of,
    x,
)
from .linear import finish_inner, inner_row, make_finish_logits, make_finish_residual, make_linear, make_norm
from .matmul import HEAD_MATMULS, MATMULS, Matmul
from .multi_head import attended_row, attention, finish_qkv
from .next_token import make_sample_rows, make_score_rows, n_sampled, n_targets
from .phases import (
    announce,
    claim,
    close_job,
    enter_job,
    item_done,
    leave_job,
    open_job,
    wait_for_job,
    wait_for_step,
)
from .roofline import measure_limit, probe
from .tensors import floats, layer_tensor, matrix, model_tensor, number_field, pointer_field, round_up
from .token_embedding import EMBEDS

_JOB_BYTES = ctypes.sizeof(Job)
_ln_1 = pointer_field("ln_1", types.float32)
_ln_2 = pointer_field("ln_2", types.float32)
_ids = pointer_field("ids", types.int32)
_logit_rows = pointer_field("logit_rows", types.int32)
_n_logits = number_field("n_logits")


@kernel
def _same_row(job, row):
    return row


@kernel
def _logit_row(job, row):
    return types.int64(_logit_rows(job)[row])


@kernel
def _three_embd(job):
    return 3 * n_embd(job)


def _make_embed(embed_row: Any, group: int) -> Any:
    wte, wpe = matrix("wte"), floats(model_tensor("wpe.weight"))

    @kernel
    def embed(job, step):
        """x = wte[id] + wpe[position]."""
        row = claim(cells(job), step)
        while row < n_rows(job):
            token, position = types.int64(_ids(job)[row]), types.int64(positions(job)[row])
            place = at(wpe(job, 0), position * round_up(n_embd(job), LANES))
            out = at(x(job), row * stride_of(n_embd(job)))
            embed_row(out, token, place, wte(job, 0), n_embd(job), round_up(n_embd(job), group))
            for k in range(n_embd(job), stride_of(n_embd(job))):
                out[k] = types.float32(0)  # a pass that overflowed may have left NaN here
            item_done(cells(job), step)
            row = claim(cells(job), step)
        wait_for_step(cells(job), step, n_rows(job))

    return embed


def _make_block(matmul: Matmul) -> Any:
    """One layer: each half reads the residual stream through a LayerNorm and adds to it what it found."""

    def linear(name: str, source: Any, out: Any, n_in: Any, n_out: Any, finish: Any) -> Any:
        return make_linear(matmul, source, matrix(name), out, n_rows, (n_in, n_out), finish)

    def norm(name: str, out: Any) -> Any:
        gain, bias = (floats(layer_tensor(f"{name}.{part}")) for part in ("weight", "bias"))
        return make_norm(gain, bias, out, _same_row)

    def residual(name: str) -> Any:
        return make_finish_residual(floats(layer_tensor(name + ".bias")))

    ln_1, ln_2 = norm("ln_1", _ln_1), norm("ln_2", _ln_2)
    attn_c_attn = linear("attn.c_attn", ln_1, qkv, n_embd, _three_embd, finish_qkv)
    attn_c_proj = linear("attn.c_proj", attended_row, projected, n_embd, n_embd, residual("attn.c_proj"))
    mlp_c_fc = linear("mlp.c_fc", ln_2, inner, n_embd, n_inner, finish_inner)
    mlp_c_proj = linear("mlp.c_proj", inner_row, projected, n_inner, n_embd, residual("mlp.c_proj"))

    @kernel
    def block(job, layer, step, me):
        """x += attention(ln_1(x)), x += mlp(ln_2(x)): STEPS_OF_LAYER steps."""
        attn_c_attn(job, layer, step, me)  # of ln_1(x); keys and values go into the cache
        attention(job, layer, step + 2, me)
        attn_c_proj(job, layer, step + 3, me)  # and onto the residual stream
        mlp_c_fc(job, layer, step + 5, me)  # of ln_2(x), and the activation
        mlp_c_proj(job, layer, step + 7, me)  # and onto the residual stream

    return block


def _make_head(matmul: Matmul) -> Any:
    """ln_f and the output embedding, for the rows that want logits."""
    gain, bias = (floats(model_tensor(f"ln_f.{part}")) for part in ("weight", "bias"))
    ln_f = make_norm(gain, bias, _ln_2, _logit_row)
    finish = make_finish_logits(matmul.planes)
    return make_linear(matmul, ln_f, matrix("lm_head"), logits, _n_logits, (n_embd, n_vocab), finish)


def make_forward(block_dtype: str, head_dtype: str) -> Any:
    """The forward pass for one type of block weights and one of the token matrix."""
    block, head = _make_block(MATMULS[block_dtype]), _make_head(HEAD_MATMULS[head_dtype])
    embed = _make_embed(EMBEDS[head_dtype], MATMULS[head_dtype].group)
    planes = HEAD_MATMULS[head_dtype].planes
    sample_rows, score_rows = make_sample_rows(planes), make_score_rows(planes)

    @kernel
    def forward(job, me):
        """The share of one thread, whose number is `me`."""
        if probe(job) != 0:
            measure_limit(job, 0, me)
            return
        after_layers = 1 + STEPS_OF_LAYER * n_layer(job)
        if first_layer(job) == 0:
            embed(job, 0)
        for layer in range(first_layer(job), last_layer(job)):
            block(job, layer, 1 + STEPS_OF_LAYER * layer, me)
        if last_layer(job) == n_layer(job) and _n_logits(job) > 0:
            head(job, 0, after_layers, me)
        if n_sampled(job) > 0:
            sample_rows(job, after_layers + 2, me)
        if n_targets(job) > 0:
            score_rows(job, after_layers + 3)

    return forward


@dataclass(frozen=True)
class Entries:
    """What compiled code offers to the interpreter."""

    run: Any  # (team): the caller's share of the jobs whose address is in the team's cells, as thread 0
    serve: Any  # (team, me): another thread's share of all jobs, until the team is told to quit


def make_entries(block_dtype: str, head_dtype: str) -> Entries:
    """The forward pass, as the entries of a team."""
    forward = make_forward(block_dtype, head_dtype)

    @kernel
    def take_turns(team, me):
        """All passes of a call; when the interpreter's lock is far, one call makes many tokens."""
        for turn in range(atomic_load(team, TURNS)):
            forward(at(pointer_in(team, JOB, types.uint8), turn * _JOB_BYTES), me)

    @kernel
    def run(team):
        if atomic_load(team, QUIT) != 0:
            announce(team)
            return
        n_steps = STEPS_OF_LAYER * n_layer(pointer_in(team, JOB, types.uint8)) + OTHER_STEPS
        open_job(team, n_steps * atomic_load(team, TURNS))
        take_turns(team, types.int64(0))  # a literal is another type, for which all would be compiled again
        close_job(team)

    @kernel
    def serve(team, me):
        seen = types.int64(0)
        while True:
            seen = wait_for_job(team, seen)
            if atomic_load(team, QUIT) != 0:
                return
            if enter_job(team):
                take_turns(team, me)
            leave_job(team)

    return Entries(run, serve)
