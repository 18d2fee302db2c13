"""One forward pass over rows: each row is a token with its position in a sequence, and some rows want logits.

Prefill is many rows of one sequence, decode one row of each, a batch rows of several: all are the same pass, and a
row's bits do not depend on the other rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Ids
from itertools import pairwise

import numpy as np

from ..abi.job import MAX_JOBS, Job
from ..abi.layout import (
    FEW_ROWS,
    FLOATS,
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
from ..backend.thread_pool import ThreadPool
from ..backend.topology import default_threads
from ..config import ACTIVATIONS
from ..sampling.params import DrawParams
from ..weights import CLOSED, Weights
from .kv_cache import KVCache, KVDtype, Sequence
from .memory import default_kv_memory

MAX_ROWS = 512
"""Rows of one pass; a longer prefill takes several."""
MAX_LOGIT_ROWS = 128
"""Rows of one pass when every one of them wants logits: 50257 numbers each."""
MAX_THREADS = 512
"""More than a machine has cores is slower, and systems refuse to start very many."""


class ModelRunner:
    """Weights, a KV cache, buffers and a thread pool: what runs passes, one at a time.

    Nothing here takes a lock: `Engine` calls it under its own.
    """

    def __init__(
        self, weights: Weights, threads: int | None = None, kv_dtype: KVDtype = "float32", kv_memory: int | None = None
    ) -> None:
        """kv_memory: bytes that the KV cache may take; None: a share of the machine's, see memory.py.

        Raises KernelError if the kernels cannot be compiled, ValueError for another value that is out of range.
        """
        if threads is not None and not (isinstance(threads, int) and 1 <= threads <= MAX_THREADS):
            raise ValueError(f"threads is {threads}; it must be from 1 to {MAX_THREADS}")
        self.weights = weights
        self.config = weights.config
        self.cache = KVCache(self.config, kv_dtype, default_kv_memory() if kv_memory is None else kv_memory)
        self.thread_pool = ThreadPool(load_kernels(weights.dtype), threads or default_threads())
        self.buffers: dict[str, np.ndarray] = {}
        self.absent_ids = np.empty(0, np.int64)  # ids without a token, which are never chosen
        self.drawn = np.empty(0, np.int32)  # ids that the last pass drew
        self.nll = np.empty(0)  # negative log-likelihoods of the last pass's targets, in nats
        self._jobs = (Job * MAX_JOBS)()
        self._job = self._jobs[0]
        self._logit_planes = LOGIT_PLANES[HEAD_DTYPE[weights.dtype]]
        self._set_model()
        self._capacity = self._logit_capacity = 0
        self._is_closed = False

    def close(self) -> None:
        """Send the threads home and let go of weights, cache and buffers; a pass then raises RuntimeError."""
        self._is_closed = True
        self.thread_pool.dismiss()
        self.buffers.clear()
        self.cache.close()
        self.weights = self.weights.closed()

    @property
    def n_parts(self) -> int:
        """Embedding, attention and MLP of each layer, LM head."""
        return 2 * self.config.n_layer + 2

    def forbid(self, absent_ids: np.ndarray) -> None:
        """Never draw some ids, int64 [n] in ascending order; see `can_draw`."""
        self.absent_ids = absent_ids
        self._job.n_choices = self.config.n_vocab - len(absent_ids) if self.can_draw else self.config.n_vocab

    @property
    def can_draw(self) -> bool:
        """True if the kernels can draw ids: those that are forbidden, if any, are the last ones."""
        n = len(self.absent_ids)
        return not n or int(self.absent_ids[0]) == self.config.n_vocab - n

    def check_open(self) -> None:
        """Raise RuntimeError if the model is closed."""
        if self._is_closed:
            raise RuntimeError(CLOSED)

    def forward(
        self,
        ids: Ids[int],
        sequences: list[Sequence],
        wants: Ids[int],
        sampling: Ids[DrawParams] = (),
        targets: Ids[int] = (),
        parts: tuple[int, int] | None = None,
        is_observed: bool = False,
    ) -> np.ndarray:
        """Append each row's id to its sequence -> logits float32 [len(wants), n_vocab] of the rows in wants.

        Rows of one sequence stand in their order. The result is a view of a buffer that the next pass overwrites.

        sampling: for the first rows of logits, how to draw the id that follows; the ids are left in `drawn`.
        targets: for the first rows of logits, the id that followed; its negative log-likelihood is left in `nll`.
        parts: run these alone, first and last exclusive, on what the pass before left in the residual stream. Part 0 is
        the embedding, 1 + 2 l the attention of layer l, 2 + 2 l its MLP, 1 + 2 n_layer the LM head with ln_f.
        is_observed: fill all buffers for the caller to look at, as a pass over some parts does.

        Raises ValueError for an id or a position that the model does not have, RuntimeError if it is closed.
        """
        positions = self._place(ids, sequences)
        self._set_rows(ids, positions, sequences, wants)
        job, params, self.drawn = self._job, np.array(sampling, np.float64), np.empty(len(sampling), np.int32)
        job.n_sampled, job.sampling, job.sampled = len(sampling), params.ctypes.data, self.drawn.ctypes.data
        next_ids, self.nll = np.array(targets, np.int32), np.empty(len(targets), np.float64)
        job.n_targets, job.targets, job.nll = len(targets), next_ids.ctypes.data, self.nll.ctypes.data
        job.first_part, job.last_part = parts or (0, self.n_parts)
        job.is_observed = is_observed or parts is not None
        self.thread_pool.run(self._jobs)
        planes = self._logit_planes
        return self.buffers["logits"][: planes * len(wants) : planes, : self.config.n_vocab]

    def streams(self, ids: Ids[int], sequences: list[Sequence], layers: Ids[int]) -> np.ndarray:
        """Append rows as `forward` does -> the residual stream after each of some numbers of layers.

        float32 [len(layers), len(ids), n_embd]. layers: in ascending order; the pass is run in as many parts.
        """
        found = np.empty((len(layers), len(ids), self.config.n_embd), np.float32)
        n_new = Counter(sequences)
        for number, (first, last) in enumerate(pairwise((0, *layers))):
            if number > 0:
                for sequence, n in n_new.items():  # the next layers read the same positions
                    sequence.length -= n
            self.forward(ids, sequences, [], parts=(2 * first + 1 if number else 0, 2 * last + 1))
            found[number] = self.buffers["x"][: len(ids), : self.config.n_embd]
        return found

    def decode_steps(self, sequences: list[Sequence], ids: Ids[int], params: np.ndarray) -> np.ndarray:
        """Multi-step decode: append ids [n], draw what follows, append that, and so on, in one call of compiled code.

        params float64 [n_steps, n, 4]: `DrawParams` of each draw, n_steps up to MAX_JOBS -> ids drawn, int32
        [n_steps, n]; the last of them are not appended. The sequences differ. The ids are those of as many passes.
        """
        params = np.ascontiguousarray(params, np.float64)
        n_steps, n = params.shape[:2]
        starts = np.array(self._place(ids, sequences, n_steps), np.int32)
        positions = starts + np.arange(n_steps, dtype=np.int32)[:, None]
        self._set_rows(ids, positions[0], sequences, range(n))
        drawn = np.empty((n_steps, n), np.int32)
        self._job.n_sampled, self._job.n_targets = n, 0
        self._job.first_part, self._job.last_part, self._job.is_observed = 0, self.n_parts, False
        for step, job in enumerate(self._jobs[:n_steps]):
            if step > 0:
                self._jobs[step] = self._job
                job.ids, job.positions = drawn[step - 1].ctypes.data, positions[step].ctypes.data
            job.sampling, job.sampled = params[step].ctypes.data, drawn[step].ctypes.data
        self.thread_pool.run(self._jobs, n_steps)
        return drawn

    def append(self, sequence: Sequence, ids: Ids[int], sampling: Ids[DrawParams] = ()) -> np.ndarray:
        """Append ids, at least one, in as many passes as it takes -> logits float32 [n_vocab] after the last.

        They are valid until the next pass. sampling: as for `forward`, for what follows the last.
        """
        for start in range(0, len(ids), MAX_ROWS):
            part = ids[start : start + MAX_ROWS]
            last = [len(part) - 1] if start + MAX_ROWS >= len(ids) else []
            logits = self.forward(part, [sequence] * len(part), last, sampling if last else ())
        after_last: np.ndarray = logits[0]
        return after_last

    def decode(self, sequences: list[Sequence], ids: Ids[int]) -> np.ndarray:
        """One more id for each sequence -> logits float32 [n, n_vocab], valid until the next pass."""
        return self.forward(ids, sequences, range(len(ids)))

    def run_parts(
        self,
        sequence: Sequence,
        ids: Ids[int],
        parts: tuple[int, int],
        stream: np.ndarray | None = None,
        wants: Ids[int] = (),
    ) -> dict[str, np.ndarray]:
        """Some parts alone, at most MAX_ROWS rows, as in `forward` -> copies of the buffers, by name.

        stream: the residual stream that a first part above 0 starts from, float32 [len(ids), n_embd].
        wants: the rows whose logits are asked for, if the LM head is among the parts.

        "x" is the residual stream after the parts, "projected" what the last of attention and MLPs added to it, without
        its bias. "ln_1", "qkv", "attended", "ln_2" and "inner" are what these parts last computed. "logits"
        [len(wants), n_vocab] if asked for.
        """
        n, n_embd = len(ids), self.config.n_embd
        self.check_open()
        self._reserve(n, len(wants))
        if stream is not None:
            self.buffers["x"][:n, :n_embd] = stream
        result = self.forward(ids, [sequence] * n, wants, parts=parts)
        widths = dict.fromkeys(("x", "projected", "ln_1", "attended", "ln_2"), n_embd)
        widths |= {"qkv": 3 * n_embd, "inner": self.config.n_inner}
        copies = {name: self.buffers[name][:n, :width].copy() for name, width in widths.items()}
        return {**copies, "logits": result.copy()} if wants else copies

    def probe(self, kind: int, items: int, data: np.ndarray) -> None:
        """Let the threads read `data` or compute on it instead of running the model: see kernels/roofline.py."""
        self._job.probe, self._job.probe_items, self._job.probe_data = kind, items, data.ctypes.data
        try:
            self.thread_pool.run(self._jobs)
        finally:
            self._job.probe = 0

    @property
    def probe_flop(self) -> int:
        """Floating-point operations of an item of the last probe."""
        return int(self._job.probe_flop)

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

    def _place(self, ids: Ids[int], sequences: list[Sequence], n_steps: int = 1) -> list[int]:
        """Positions of the rows in the first of n_steps passes; their sequences grow by n_steps for each row."""
        self.check_open()
        n_vocab, n_ctx = self.config.n_vocab, self.config.n_ctx
        if len(ids) and not 0 <= min(ids) <= max(ids) < n_vocab:
            raise ValueError(f"token {max(ids) if min(ids) >= 0 else min(ids)} is not in 0..{n_vocab - 1}")
        rows = Counter(map(id, sequences))
        if any(sequence.length + rows[id(sequence)] * n_steps > n_ctx for sequence in sequences):
            raise ValueError(f"the text is longer than {n_ctx} tokens, the context of this model")
        positions = []
        for sequence in sequences:
            self.cache.extend(sequence, sequence.length + n_steps)
            positions.append(sequence.length)
            sequence.length += n_steps
        return positions

    def _set_model(self) -> None:
        """The part of the job that every pass shares."""
        job, weights, config = self._job, self.weights, self.config
        self._attention_scales = np.array([config.attention_scale(i) for i in range(config.n_layer)], np.float32)
        job.n_layer, job.n_head, job.n_embd = config.n_layer, config.n_head, config.n_embd
        job.n_inner, job.n_vocab = config.n_inner, config.n_vocab
        job.n_choices = config.n_vocab
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
        rows, n_logits = max(padded(n_rows, ROW_TILE), self._capacity), max(n_logits, self._logit_capacity)
        self._capacity = self._logit_capacity = 0  # until all is done, which an interrupt may prevent
        logits = n_logits * self._logit_planes
        config, n_threads = self.config, self.thread_pool.n_threads
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
            "packed": (packed * widest // (1 if self.weights.dtype in FLOATS else 2),),
            "packed_sums": (groups,),
            "packed_scales": (groups,),
        }
        for name, shape in shapes.items():
            if name not in self.buffers or self.buffers[name].shape != shape:  # x outlives a pass over some layers
                self.buffers[name] = aligned_zeros(shape, "float32")
            setattr(self._job, name, self.buffers[name].ctypes.data)
        self._capacity, self._logit_capacity = rows, n_logits
