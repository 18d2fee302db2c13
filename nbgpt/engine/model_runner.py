"""One forward pass over rows: each row is a token with its place in a sequence, and some rows want logits.

Prefill is many rows of one sequence, decoding one row of each, a batch rows of several: it is all the same pass, and a
row's bits do not depend on its company.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Sequence as Ids
from dataclasses import replace

import numpy as np

from ..abi.job import MAX_JOBS, Job
from ..abi.layout import (
    FEW_ROWS,
    GROUP,
    HEAD_DTYPE,
    LANES,
    LOGIT_PLANES,
    PAGE,
    QUERY_TILE,
    ROW_TILE,
    SAMPLING_BUCKETS,
    SPAN_PAGES,
    STRIDE,
    attention_floats,
    padded,
    sampling_floats,
)
from ..backend.buffers import aligned_zeros
from ..backend.kernel_cache import load_kernels
from ..backend.thread_pool import ThreadPool, default_threads
from ..config import ACTIVATIONS
from ..weights import Weights
from .kv_cache import KVCache, KVDtype, Sequence

Options = tuple[float, float, float, float]
"""Temperature, top_k, top_p and a uniform number in [0, 1): see kernels/draw.py."""
MAX_THREADS = 512
"""More than a machine has cores is slower, and systems refuse to start very many."""


class ModelRunner:
    """Weights, a KV cache and a team of threads: what runs passes, one at a time.

    `grow`, `fork`, `truncate` and `free` may be called from several threads; `forward` needs the lock.
    """

    def __init__(self, weights: Weights, n_threads: int | None = None, kv_dtype: KVDtype = "float32") -> None:
        """Raises KernelError if the kernels cannot be compiled, ValueError for n_threads or kv_dtype out of range."""
        if n_threads is not None and not (isinstance(n_threads, int) and 1 <= n_threads <= MAX_THREADS):
            raise ValueError(f"threads is {n_threads}; it must be from 1 to {MAX_THREADS}")
        self.weights = weights
        self.config = weights.config
        self.cache = KVCache(self.config, kv_dtype)
        self.team = ThreadPool(load_kernels(weights.dtype), n_threads or default_threads())
        self._buffers: dict[str, np.ndarray] = {}
        self._lock = threading.RLock()  # the collector may free a sequence in the middle of this thread's pass
        self._jobs = (Job * MAX_JOBS)()
        self._job = self._jobs[0]
        self._logit_planes = LOGIT_PLANES[HEAD_DTYPE[weights.dtype]]
        self._set_model()
        self._capacity = self._logit_capacity = 0
        self._is_closed = False
        _ENGINES.add(self)

    def close(self) -> None:
        """Send the threads home and let go of the weights, the cache and all buffers; a pass then raises RuntimeError.

        Waits for the pass that is under way.
        """
        with self._lock:
            self._is_closed = True
            self.team.dismiss()
            self._buffers.clear()
            self.cache.memory = np.zeros(0, self.cache.memory.dtype)
            self.weights = replace(self.weights, block=np.zeros(0, np.uint8))

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("this model is closed: load it again")

    def forward(
        self,
        ids: Ids[int],
        sequences: list[Sequence],
        wants: Ids[int],
        sampling: Ids[Options] = (),
        targets: Ids[int] = (),
        layers: tuple[int, int] | None = None,
        is_observed: bool = False,
    ) -> np.ndarray:
        """Append each row's id to its sequence -> logits float32 [len(wants), n_vocab] of the rows in wants.

        Rows of one sequence stand in their order. The result is a view of a buffer that the next pass overwrites.
        sampling: options for the first rows of logits, which draw an id each.
        targets: the ids that came next, for the first rows of logits, which say how surprising they were.
        layers: run these alone, first and last exclusive, on what the pass before left in the residual stream.
        is_observed: fill all buffers for the caller to look at, as a pass over some layers does.
        Raises ValueError for an id or a position that the model does not have, RuntimeError if it is closed.
        """
        positions = self._place(ids, sequences)
        self._set_rows(ids, positions, sequences, wants)
        job, options, self._sampled = self._job, np.array(sampling, np.float64), np.empty(len(sampling), np.int32)
        job.n_sampled, job.sampling, job.sampled = len(sampling), options.ctypes.data, self._sampled.ctypes.data
        next_ids, self._surprises = np.array(targets, np.int32), np.empty(len(targets), np.float64)
        job.n_targets, job.targets, job.nll = len(targets), next_ids.ctypes.data, self._surprises.ctypes.data
        job.first_layer, job.last_layer = layers or (0, self.config.n_layer)
        job.is_observed = is_observed or layers is not None
        self.team.run(self._jobs)
        planes = self._logit_planes
        return self._buffers["logits"][: planes * len(wants) : planes, : self.config.n_vocab]

    def grow(self, sequences: list[Sequence], ids: Ids[int], options: np.ndarray) -> np.ndarray:
        """Several tokens for each sequence in one call: append ids [n] and what is drawn after them, but for the last.

        options float64 [turns, n, 4] as for `next_ids`, turns up to MAX_JOBS -> ids drawn, int32 [turns, n].
        The sequences differ. The ids are those that as many calls of `next_ids` would give.
        """
        options = np.ascontiguousarray(options, np.float64)
        turns, n = options.shape[:2]
        with self._lock:
            starts = np.array(self._place(ids, sequences, turns), np.int32)
            positions = starts + np.arange(turns, dtype=np.int32)[:, None]
            self._set_rows(ids, positions[0], sequences, range(n))
            drawn = np.empty((turns, n), np.int32)
            self._job.n_sampled, self._job.n_targets = n, 0
            self._job.first_layer, self._job.last_layer, self._job.is_observed = 0, self.config.n_layer, False
            for turn, job in enumerate(self._jobs[:turns]):
                if turn > 0:
                    self._jobs[turn] = self._job
                    job.ids, job.positions = drawn[turn - 1].ctypes.data, positions[turn].ctypes.data
                job.sampling, job.sampled = options[turn].ctypes.data, drawn[turn].ctypes.data
            self.team.run(self._jobs, turns)
        return drawn

    def probe(self, kind: int, items: int, data: np.ndarray) -> None:
        """Let the team read `data` or compute on it instead of running the model: see kernels/roofline.py."""
        self._job.probe, self._job.probe_items, self._job.probe_data = kind, items, data.ctypes.data
        try:
            self.team.run(self._jobs)
        finally:
            self._job.probe = 0

    @property
    def probe_flop(self) -> int:
        """Floating-point operations of an item of the last probe."""
        return int(self._job.probe_flop)

    def free(self, sequence: Sequence) -> None:
        """Give the pages of a sequence back."""
        with self._lock:
            self.cache.truncate(sequence, 0)

    def truncate(self, sequence: Sequence, length: int) -> None:
        """Forget the positions of a sequence from length on."""
        with self._lock:
            self.cache.truncate(sequence, length)

    def fork(self, sequence: Sequence, length: int) -> Sequence:
        """Another sequence with the first `length` positions of this one's past."""
        with self._lock:
            fork = self.cache.fork(sequence)
            self.cache.truncate(fork, length)
            return fork

    def copy_pages(self, sequence: Sequence) -> np.ndarray:
        """What the cache holds of a sequence: [n_pages, numbers of a page]."""
        with self._lock:
            self._check_open()
            return self.cache.copy(sequence)

    def restore(self, pages: np.ndarray, length: int) -> Sequence:
        """A sequence of so many positions with pages that `copy_pages` gave."""
        with self._lock:
            self._check_open()
            return self.cache.restore(pages, length)

    def _set_rows(
        self, ids: Ids[int], positions: Ids[int] | np.ndarray, sequences: list[Sequence], wants: Ids[int]
    ) -> None:
        """The part of the job that says which rows there are, and where their pasts lie."""
        job = self._job
        tables: dict[int, int] = {}
        page_table: list[int] = []
        for sequence in sequences:
            if id(sequence) not in tables:
                tables[id(sequence)] = len(page_table)
                page_table += sequence.pages
        self._reserve(len(ids), len(wants))
        rows = {
            "ids": ids,
            "positions": positions,
            "table_starts": [tables[id(sequence)] for sequence in sequences],
            "page_tables": page_table,
            "logit_rows": wants,
        }
        self._rows = {name: np.array(values, np.int32) for name, values in rows.items()}  # alive while they are used
        for name, array in self._rows.items():
            setattr(job, name, array.ctypes.data)
        job.n_rows, job.n_logits = len(ids), len(wants)
        job.pages, job.kv_is_float16 = self.cache.memory.ctypes.data, self.cache.dtype == "float16"

    def _place(self, ids: Ids[int], sequences: list[Sequence], turns: int = 1) -> list[int]:
        """Positions of the rows; their sequences grow by them, and by as many in each further turn."""
        self._check_open()
        n_vocab, n_ctx = self.config.n_vocab, self.config.n_ctx
        if len(ids) and not 0 <= min(ids) <= max(ids) < n_vocab:
            raise ValueError(f"token {max(ids) if min(ids) >= 0 else min(ids)} is not in 0..{n_vocab - 1}")
        rows = Counter(map(id, sequences))
        if any(sequence.length + rows[id(sequence)] * turns > n_ctx for sequence in sequences):
            raise ValueError(f"the text is longer than {n_ctx} tokens, the context of this model")
        positions = []
        for sequence in sequences:
            self.cache.extend(sequence, sequence.length + turns)
            positions.append(sequence.length)
            sequence.length += turns
        return positions

    def _set_model(self) -> None:
        """The part of the job that every pass shares."""
        job, weights, config = self._job, self.weights, self.config
        self._attention_scales = np.array([config.attention_scale(i) for i in range(config.n_layer)], np.float32)
        job.n_layer, job.n_head, job.n_embd = config.n_layer, config.n_head, config.n_embd
        job.n_inner, job.n_vocab = config.n_inner, config.n_vocab
        job.activation = ACTIVATIONS.index(config.activation)
        job.epsilon = config.layer_norm_epsilon
        job.weights = weights.block.ctypes.data
        job.model_offsets = weights.model_offsets.ctypes.data
        job.layer_offsets = weights.layer_offsets.ctypes.data
        job.attention_scales = self._attention_scales.ctypes.data

    def _reserve(self, n_rows: int, n_logits: int) -> None:
        """Buffers for so many rows; they stay, so that the steady state allocates nothing."""
        if n_rows <= self._capacity and n_logits <= self._logit_capacity:
            return
        self._capacity = rows = max(padded(n_rows, ROW_TILE), self._capacity)
        self._logit_capacity = max(n_logits, self._logit_capacity)
        logits = self._logit_capacity * self._logit_planes
        config, n_threads = self.config, self.team.n_threads
        copies = FEW_ROWS * n_threads  # each thread has its own few rows
        n_embd, n_inner = padded(config.n_embd, STRIDE), padded(config.n_inner, STRIDE)
        widest = max(n_embd, n_inner)
        finest = min(GROUP[self.weights.dtype], GROUP[HEAD_DTYPE[self.weights.dtype]])
        packed = max(padded(max(rows, logits), ROW_TILE), ROW_TILE * n_threads)
        groups = packed * widest // finest
        value_dim = padded(config.head_dim, LANES)
        self._job.max_spans = -(-config.n_ctx // (SPAN_PAGES * PAGE))
        self._job.candidates_stride = sampling_floats(config.n_vocab)
        self._job.scratch_stride = padded(attention_floats(QUERY_TILE, config.head_dim), LANES)
        shapes = {
            **dict.fromkeys(("x", "projected"), (rows, n_embd)),
            **dict.fromkeys(("ln_1", "attended"), (max(rows, copies), n_embd)),
            "ln_2": (max(rows, logits, copies), n_embd),
            "qkv": (rows, padded(3 * config.n_embd, STRIDE)),
            "inner": (rows, n_inner),
            "logits": (logits, padded(config.n_vocab, STRIDE)),
            "states": (FEW_ROWS * config.n_head * self._job.max_spans, value_dim + LANES),
            "scratch": (n_threads, self._job.scratch_stride),
            "candidates": (n_threads, self._job.candidates_stride),
            "buckets": (n_threads, 2 * SAMPLING_BUCKETS),  # float64
            "packed": (packed * widest // (1 if finest == 1 else 2),),
            "packed_sums": (groups,),
            "packed_scales": (groups,),
        }
        for name, shape in shapes.items():
            if name not in self._buffers or self._buffers[name].shape != shape:  # x outlives a pass over some layers
                self._buffers[name] = aligned_zeros(shape, "float32")
                setattr(self._job, name, self._buffers[name].ctypes.data)


_ENGINES = weakref.WeakSet[ModelRunner]()
_FORK = threading.RLock()
_HELD: list[ModelRunner] = []


def _before_fork() -> None:
    """Wait for the passes of other threads: the child would find them half done for ever."""
    _FORK.acquire()
    _HELD[:] = list(_ENGINES)
    for engine in _HELD:
        engine._lock.acquire()


def _after_fork() -> None:
    for engine in _HELD:
        engine._lock.release()
    _HELD.clear()
    _FORK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
