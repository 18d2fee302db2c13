"""Samples a token from logits: temperature, then top-k, then top-p, then one draw. Also the NLL of a given token.

The *bits* of a positive float32, read as an integer, order floats as their values do. A threshold is given in bits.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types

from ..abi.layout import LANES, SAMPLING_BLOCK, SAMPLING_BUCKETS
from ..simd import at, cast, keep_first, kernel, largest, load, maximum, splat, store, total
from .softmax import exp

_MASK = SAMPLING_BUCKETS - 1
_BITS = _MASK.bit_length()
_ROUNDS = 3  # 3 * 11 bits cover a float32
_MINUS_INFINITY = np.float32(-np.inf)
_TINY, _HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_LEAST = int(np.float32(2.0**-125).view(np.int32))  # just above exp's lower limit, which exp(-inf) gives: never drawn


@kernel
def largest_of(x, n):
    """Maximum of x [n]."""
    top = splat(_MINUS_INFINITY)
    for i in range(0, n, LANES):
        top = maximum(top, keep_first(load(x, i), n - i, top))
    return largest(top)


@kernel
def negative_log_likelihood(logits, n, target):  # logits [n]
    """-log softmax(logits)[target], in nats. Sums of 16 registers are float32, their total is float64."""
    top = largest_of(logits, n)
    result = 0.0
    for start in range(0, n, 16 * LANES):
        sums = splat(types.float32(0))
        for i in range(start, min(start + 16 * LANES, n), LANES):
            sums = sums + keep_first(exp(load(logits, i) - splat(top)), n - i, splat(types.float32(0)))
        result += types.float64(total(sums))
    return math.log(result) + types.float64(top) - types.float64(logits[target])


@kernel
def kept_bits(weights, n, goal, by_count, least, buckets):
    """Bits of the largest threshold t for which the sum of the weights >= t (by_count: their number) reaches the goal.

    A radix search: three rounds of 2048 buckets find t exactly. Weights whose bits are below `least` do not count.
    """
    prefix = types.int64(0)
    reached = 0.0
    for round_ in range(_ROUNDS):
        shift = _BITS * (_ROUNDS - 1 - round_)
        for bucket in range(_MASK + 1):
            buckets[bucket] = 0.0
        bits = cast(weights, types.int32)
        for i in range(n):
            key = types.int64(bits[i])
            if key >> (shift + _BITS) == prefix and key >= least:
                buckets[(key >> shift) & _MASK] += 1.0 if by_count else types.float64(weights[i])
        bucket = _MASK
        while bucket > 0 and reached + buckets[bucket] < goal:
            reached += buckets[bucket]
            bucket -= 1
        prefix = (prefix << _BITS) | bucket
    return max(prefix, least)


@kernel
def sum_kept(weights, n, least):
    """Sum of the weights whose bits are at least `least`."""
    bits, result = cast(weights, types.int32), 0.0
    for i in range(n):
        if bits[i] >= least:
            result += types.float64(weights[i])
    return result


@kernel
def draw(weights, n, least, uniform):
    """Index of the weight at which the running sum of the kept weights exceeds uniform * their sum."""
    bits, goal, last = cast(weights, types.int32), uniform * sum_kept(weights, n, least), 0
    for i in range(n):
        if bits[i] >= least:
            goal -= types.float64(weights[i])
            last = i
            if goal < 0.0:
                return i
    return last  # rounding left a rest of the goal


@kernel
def likely_blocks(logits, n, top_k, top, inverse, maxima, buckets):
    """maxima = the largest weight of each block; returns a lower bound of the bits of the top_k-th largest weight.

    The bound is the top_k-th largest of maxima: each of them is one of the weights.
    """
    n_blocks = (n + SAMPLING_BLOCK - 1) // SAMPLING_BLOCK
    for block in range(n_blocks):
        start = block * SAMPLING_BLOCK
        maxima[block] = largest_of(at(logits, start), min(SAMPLING_BLOCK, n - start))
    for i in range(0, n_blocks, LANES):
        store(maxima, i, exp((load(maxima, i) - splat(top)) * inverse))
    if top_k > n_blocks:
        return types.int64(_LEAST)
    return kept_bits(maxima, n_blocks, top_k, True, types.int64(_LEAST), buckets)


@kernel
def gather(logits, n, top, inverse, least, maxima, weights, ids):
    """Collect the weights whose bits reach `least`, and their ids, in order; returns their number."""
    bits, block_bits, count = cast(weights, types.int32), cast(maxima, types.int32), 0
    for block in range((n + SAMPLING_BLOCK - 1) // SAMPLING_BLOCK):
        if block_bits[block] < least:
            continue
        start = block * SAMPLING_BLOCK
        for i in range(start, min(start + SAMPLING_BLOCK, n), LANES):
            spare = count + LANES  # these lanes are stored behind all that they can add
            store(weights, spare, exp((load(logits, i) - splat(top)) * inverse))
            for lane in range(min(LANES, n - i)):
                if bits[spare + lane] >= least:
                    weights[count], ids[count] = weights[spare + lane], i + lane
                    count += 1
    return count


@kernel
def sample(logits, n, options, buckets, scratch):  # logits [n]; buckets [2048]; scratch [sampling_floats(n)]
    """Sample an id; options = (temperature, top_k, top_p, uniform number in [0, 1)).

    Temperature 0 takes the largest logit, the first among equals; top_k 0 and top_p 1 keep everything. Top-p keeps the
    token that crosses p, as Hugging Face does (Holtzman et al. 2020); equal weights are kept or dropped together.
    """
    temperature, top_k, top_p, uniform = options[0], options[1], options[2], options[3]
    top = largest_of(logits, n)
    if temperature == 0.0:
        for i in range(n):
            if logits[i] == top:
                return i
    inverse = splat(types.float32(min(max(1.0 / temperature, _TINY), _HUGE)))  # 0 * inf would be NaN
    room = n + 2 * LANES
    weights, ids, maxima = scratch, cast(at(scratch, room), types.int32), at(scratch, 2 * room)
    least = types.int64(_LEAST)
    if 0.0 < top_k < n:
        bound = likely_blocks(logits, n, top_k, top, inverse, maxima, buckets)
        count = gather(logits, n, top, inverse, bound, maxima, weights, ids)
        least = kept_bits(weights, count, top_k, True, least, buckets)
    else:
        count = n
        for i in range(0, n, LANES):
            store(weights, i, exp((load(logits, i) - splat(top)) * inverse))
    if top_p < 1.0:
        least = kept_bits(weights, count, top_p * sum_kept(weights, count, least), False, least, buckets)
    index = draw(weights, count, least, uniform)
    return types.int64(ids[index]) if 0.0 < top_k < n else index
