"""The record of a pass: slots of eight bytes, in the order of the table."""

import ctypes
import itertools

from nbgpt.abi.job import (
    CALLS,
    COUNTERS_OF_PHASE,
    FIRST_JOB,
    LAYER_TENSORS,
    MODEL_TENSORS,
    N_JOBS,
    PHASES,
    QUIT,
    SLEEPING,
    SLOT,
    SLOT_TYPES,
    WORKING,
    Job,
)


def test_slots_have_eight_bytes_in_the_order_of_the_table():
    assert list(SLOT) == list(SLOT_TYPES)
    assert list(SLOT.values()) == list(range(len(SLOT_TYPES)))
    assert ctypes.sizeof(Job) == 8 * len(SLOT_TYPES)


def test_a_slot_is_found_at_its_index():
    job = Job(epsilon=0.5, probe_flop=-7, ids=1234)
    assert ctypes.c_float.from_buffer(job, 8 * SLOT["epsilon"]).value == 0.5
    assert ctypes.c_int64.from_buffer(job, 8 * SLOT["probe_flop"]).value == -7
    assert ctypes.c_int64.from_buffer(job, 8 * SLOT["ids"]).value == 1234


def test_counters_of_different_threads_share_no_cache_line():
    written = sorted({CALLS, SLEEPING, QUIT, FIRST_JOB, WORKING, PHASES})
    assert all(after - before >= 8 for before, after in itertools.pairwise(written))
    assert N_JOBS // 8 == FIRST_JOB // 8  # written together, by the caller
    assert COUNTERS_OF_PHASE % 8 == 0


def test_every_tensor_is_listed_once():
    names = [*MODEL_TENSORS, *LAYER_TENSORS]
    assert len(set(names)) == len(names)
