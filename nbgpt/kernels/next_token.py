"""The last steps of a pass: ids drawn from rows of logits, and how surprising the ids were that came next."""

from __future__ import annotations

from typing import Any

from numba import types

from ..abi.layout import SAMPLING_BUCKETS
from ..simd import at, kernel
from .draw import sample, surprise
from .fields import cells, logits, n_vocab, stride_of
from .phases import claim, item_done, wait_for_step
from .tensors import number_field, pointer_field

n_sampled, _sampled = number_field("n_sampled"), pointer_field("sampled", types.int32)
_sampling = pointer_field("sampling", types.float64)
_buckets, _candidates = pointer_field("buckets", types.float64), pointer_field("candidates", types.float32)
_candidates_stride = number_field("candidates_stride")
n_targets, _targets = number_field("n_targets"), pointer_field("targets", types.int32)
_surprises = pointer_field("surprises", types.float64)


def make_sample_rows(planes: int) -> Any:
    """An id for each row of logits that wants one; rows are `planes` apart."""

    @kernel
    def sample_rows(job, step, me):
        n, stride = n_vocab(job), stride_of(n_vocab(job))
        buckets, weights = at(_buckets(job), me * SAMPLING_BUCKETS), at(_candidates(job), me * _candidates_stride(job))
        row = claim(cells(job), step)
        while row < n_sampled(job):
            options, row_logits = at(_sampling(job), 4 * row), at(logits(job), row * planes * stride)
            _sampled(job)[row] = sample(row_logits, n, options, buckets, weights)
            item_done(cells(job), step)
            row = claim(cells(job), step)
        wait_for_step(cells(job), step, n_sampled(job))

    return sample_rows


def make_score_rows(planes: int) -> Any:
    """The surprise of the id that came next, for each row of logits that has one."""

    @kernel
    def score_rows(job, step):
        n, stride = n_vocab(job), stride_of(n_vocab(job))
        row = claim(cells(job), step)
        while row < n_targets(job):
            row_logits = at(logits(job), row * planes * stride)
            _surprises(job)[row] = surprise(row_logits, n, types.int64(_targets(job)[row]))
            item_done(cells(job), step)
            row = claim(cells(job), step)
        wait_for_step(cells(job), step, n_targets(job))

    return score_rows
