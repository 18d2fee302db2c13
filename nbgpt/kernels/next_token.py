"""The last phases of a pass: tokens sampled from rows of logits, and the NLL of target tokens."""

from __future__ import annotations

from typing import Any

from numba import types

from ..abi.layout import SAMPLING_BUCKETS
from ..simd import at, kernel
from .draw import negative_log_likelihood, sample
from .fields import (
    buckets,
    candidates,
    candidates_stride,
    logits,
    n_choices,
    n_sampled,
    n_targets,
    n_vocab,
    nll,
    sampled,
    sampling,
    targets,
)
from .phases import make_phase
from .rows import stride_of


def _make_logits_of(planes: int) -> Any:
    @kernel
    def logits_of(job, row):
        """A row of logits [n_vocab]."""
        return at(logits(job), row * planes * stride_of(n_vocab(job)))

    return logits_of


def make_sample(planes: int) -> Any:
    """Sample a token from each of the first n_sampled rows of logits."""
    logits_of = _make_logits_of(planes)

    @kernel
    def sample_row(job, layer, row, thread):
        sums, weights = (
            at(buckets(job), thread * SAMPLING_BUCKETS),
            at(candidates(job), thread * candidates_stride(job)),
        )
        sampled(job)[row] = sample(logits_of(job, row), n_choices(job), at(sampling(job), 4 * row), sums, weights)

    return make_phase(n_sampled, sample_row)


def make_score(planes: int) -> Any:
    """Compute the NLL of the target of each of the first n_targets rows of logits."""
    logits_of = _make_logits_of(planes)

    @kernel
    def score_row(job, layer, row, thread):
        target = types.int64(targets(job)[row])
        nll(job)[row] = negative_log_likelihood(logits_of(job, row), n_vocab(job), target)

    return make_phase(n_targets, score_row)
