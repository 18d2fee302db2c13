"""One forward pass over rows: each row is a token with its place in a sequence, and some rows want logits.

Prefill is many rows of one sequence, decoding one row of each, a batch rows of several: it is all the same pass, and a
row's bits do not depend on its company.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence as Ids
from dataclasses import replace

import numpy as np

from .buffers import aligned_zeros
from .config import ACTIVATIONS
from .job import MAX_TURNS, Job
from .kv_cache import KVCache, KVDtype, Sequence
from .layout import (
    FEW_ROWS,
    GROUP,
    HEAD_DTYPE,
    LANES,
    LOGIT_PLANES,
    MAX_QUERY_TILE,
    PAGE,
    ROW_TILE,
    SAMPLING_BUCKETS,
    SPAN_PAGES,
    STRIDE,
    padded,
    sampling_floats,
)
from .runtime import load_kernels
from .team import Team, default_threads
from .weights import Weights

Options = tuple[float, float, float, float]
"""Temperature, top_k, top_p and a uniform number in [0, 1): see kernels/sampling.py."""
MAX_ROWS = 512
"""Rows of one pass; a longer prefill takes several."""
MAX_LOGIT_ROWS = 128
"""Rows of one pass when every one of them wants logits: 50257 numbers each."""
MAX_THREADS = 512
"""More than a machine has cores is slower, and systems refuse to start very many."""


class GPT2:
    """Weights, a KV cache and a team of threads: ids in, logits out.

    `next_id`, `next_ids`, `grow`, `read`, `logits`, `surprises`, `outputs`, `fork`, `truncate` and `free` may be called
    from several threads: passes take turns.
    """

    def __init__(self, weights: Weights, n_threads: int | None = None, kv_dtype: KVDtype = "float32") -> None:
        """Raises KernelError if the kernels cannot be compiled, ValueError for n_threads or kv_dtype out of range."""
        if n_threads is not None and not (isinstance(n_threads, int) and 1 <= n_threads <= MAX_THREADS):
            raise ValueError(f"threads is {n_threads}; it must be from 1 to {MAX_THREADS}")
        self.weights = weights
        self.config = weights.config
        self.cache = KVCache(self.config, kv_dtype)
        self.team = Team(load_kernels(weights.dtype), n_threads or default_threads())
        self._buffers: dict[str, np.ndarray] = {}
        self._lock = threading.RLock()  # the collector may free a sequence in the middle of this thread's pass
        self._jobs = (Job * MAX_TURNS)()
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

    def free(self, sequence: Sequence) -> None:
        """Give the pages of a sequence back."""
        with self._lock:
            self.cache.truncate(sequence, 0)

    def truncate(self, sequence: Sequence, length: int) -> None:
        """Forget the positions of a sequence from length on."""
        with self._lock:
            self.cache.truncate(sequence, length)

    def prefill(self, sequence: Sequence, ids: Ids[int]) -> np.ndarray:
        """Append ids, at least one, to a sequence -> logits float32 [n_vocab] after the last, until the next pass."""
        last: np.ndarray = self._append(sequence, ids)[0]
        return last

    def decode(self, sequences: list[Sequence], ids: Ids[int]) -> np.ndarray:
        """One more token for each sequence -> logits float32 [n, n_vocab], valid until the next pass."""
        return self.forward(ids, sequences, range(len(ids)))

    def next_id(self, sequence: Sequence, ids: Ids[int], options: Options) -> int:
        """Append ids to a sequence and draw the id that follows."""
        with self._lock:
            self._append(sequence, ids, [options])
            return int(self._sampled[0])

    def next_ids(self, sequences: list[Sequence], ids: Ids[int], options: list[Options]) -> list[int]:
        """One more token for each sequence, and the ids drawn to follow them."""
        with self._lock:
            self.forward(ids, sequences, range(len(ids)), options)
            return [int(drawn) for drawn in self._sampled]

    def _append(self, sequence: Sequence, ids: Ids[int], sampling: Ids[Options] = ()) -> np.ndarray:
        """Append ids part by part -> logits float32 [1, n_vocab] after the last, which sampling draws from."""
        for start in range(0, len(ids), MAX_ROWS):
            part = ids[start : start + MAX_ROWS]
            last = [len(part) - 1] if start + MAX_ROWS >= len(ids) else []
            result = self.forward(part, [sequence] * len(part), last, sampling if last else ())
        return result

    def run_layer(
        self, sequence: Sequence, ids: Ids[int], layer: int, stream: np.ndarray | None
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """One layer over a text, part by part -> inputs of each matrix [n, n_in], the stream after it [n, n_embd].

        stream: the residual stream before the layer, float32 [len(ids), n_embd]; None: the embedding (layer 0).
        Inputs are views that the next part overwrites.
        """
        n_embd, n_inner, buffers = self.config.n_embd, self.config.n_inner, self._buffers
        for start in range(0, len(ids), MAX_ROWS):
            part = ids[start : start + MAX_ROWS]
            n = len(part)
            self._reserve(n, 0)
            if stream is not None:
                buffers["x"][:n, :n_embd] = stream[start : start + n]
            self.forward(part, [sequence] * n, [], layers=(layer, layer + 1))
            inputs = {
                "attn.c_attn.weight": buffers["ln_1"][:n, :n_embd],
                "attn.c_proj.weight": buffers["attended"][:n, :n_embd],
                "mlp.c_fc.weight": buffers["ln_2"][:n, :n_embd],
                "mlp.c_proj.weight": buffers["inner"][:n, :n_inner],
            }
            yield inputs, buffers["x"][:n, :n_embd].copy()

    def logits(self, ids: Ids[int]) -> Iterator[np.ndarray]:
        """Read ids from an empty context -> logits float32 [n, n_vocab] after each of them, part by part."""
        sequence = Sequence()
        try:
            for start in range(0, len(ids), MAX_LOGIT_ROWS):
                part = ids[start : start + MAX_LOGIT_ROWS]
                with self._lock:
                    result = self.forward(part, [sequence] * len(part), range(len(part))).copy()
                yield result
        finally:
            self.free(sequence)

    def surprises(self, ids: Ids[int], first: int = 1) -> np.ndarray:
        """-log p(id | the ids before it) in nats, float64 [len(ids) - first], of the ids from `first` >= 1 on."""
        sequence, parts = Sequence(), [np.empty(0)]
        try:
            start = 0
            while start < len(ids) - 1:
                unscored = max(0, first - 1 - start)
                rows = min(MAX_ROWS, unscored) if unscored else min(MAX_LOGIT_ROWS, len(ids) - 1 - start)
                targets = [] if unscored else ids[start + 1 : start + 1 + rows]
                with self._lock:
                    self.forward(ids[start : start + rows], [sequence] * rows, range(len(targets)), targets=targets)
                    parts.append(self._surprises)
                start += rows
        finally:
            self.free(sequence)
        return np.concatenate(parts)

    def probe(self, kind: int, items: int, data: np.ndarray) -> None:
        """Let the team read `data` or compute on it instead of running the model: see kernels/limits.py."""
        self._job.probe, self._job.probe_items, self._job.probe_data = kind, items, data.ctypes.data
        try:
            self.team.run(self._jobs)
        finally:
            self._job.probe = 0

    @property
    def probe_flop(self) -> int:
        """Floating-point operations of an item of the last probe."""
        return int(self._job.probe_flop)

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
        job.n_targets, job.targets, job.surprises = len(targets), next_ids.ctypes.data, self._surprises.ctypes.data
        job.first_layer, job.last_layer = layers or (0, self.config.n_layer)
        job.is_observed = is_observed or layers is not None
        self.team.run(self._jobs)
        planes = self._logit_planes
        return self._buffers["logits"][: planes * len(wants) : planes, : self.config.n_vocab]

    def grow(self, sequences: list[Sequence], ids: Ids[int], options: np.ndarray) -> np.ndarray:
        """Several tokens for each sequence in one call: append ids [n] and what is drawn after them, but for the last.

        options float64 [turns, n, 4] as for `next_ids`, turns up to MAX_TURNS -> ids drawn, int32 [turns, n].
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
            "tables": [tables[id(sequence)] for sequence in sequences],
            "page_tables": page_table,
            "logit_rows": wants,
        }
        self._rows = {name: np.array(values, np.int32) for name, values in rows.items()}  # alive while they are used
        for name, array in self._rows.items():
            setattr(job, name, array.ctypes.data)
        job.n_rows, job.n_logits = len(ids), len(wants)
        job.pages, job.kv_halves = self.cache.memory.ctypes.data, self.cache.dtype == "float16"

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
        self._job.scratch_stride = padded(
            MAX_QUERY_TILE * (config.head_dim + 2 * (value_dim + LANES) + PAGE + 1), LANES
        )
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
            "packed": (packed * widest * (4 if finest == 1 else 1) // 4,),
            "packed_sums": (groups,),
            "packed_scales": (groups,),
        }
        for name, shape in shapes.items():
            if name not in self._buffers or self._buffers[name].shape != shape:  # x outlives a pass over some layers
                self._buffers[name] = aligned_zeros(shape, "float32")
                setattr(self._job, name, self._buffers[name].ctypes.data)

    def hidden(self, texts: list[list[int]], layer: int) -> Iterator[np.ndarray]:
        """Read texts, each from an empty context -> the residual stream after so many layers, before ln_f.

        float32 [n, n_embd], a row for each token of the first text, then of the second, ..., part by part.
        """
        ids = [token for text in texts for token in text]
        for rows, sequences in self._in_passes([Sequence() for _ in texts], list(map(len, texts)), MAX_ROWS):
            with self._lock:
                self.forward(ids[rows], sequences, [], layers=(0, layer))
                part = self._buffers["x"][: len(sequences), : self.config.n_embd].copy()
            yield part

    def surprises_of(self, texts: list[list[int]], shared: Ids[int] = ()) -> list[np.ndarray]:
        """-log p in nats of the ids of each text but its first, given those before them: float64 [len(text) - 1] each.

        shared: what stands before every text; it is read once.
        """
        past = Sequence()
        try:
            for start in range(0, len(shared), MAX_ROWS):
                with self._lock:
                    part = shared[start : start + MAX_ROWS]
                    self.forward(part, [past] * len(part), [])
            with self._lock:
                sequences = [self.cache.fork(past) for _ in texts]
        finally:
            self.free(past)
        lengths = [len(text) - 1 for text in texts]
        ids = [token for text in texts for token in text[:-1]]
        targets = [token for text in texts for token in text[1:]]
        found = np.empty(len(targets))
        for rows, owners in self._in_passes(sequences, lengths, MAX_LOGIT_ROWS):
            with self._lock:
                self.forward(ids[rows], owners, range(len(owners)), targets=targets[rows])
                found[rows] = self._surprises
        return np.split(found, np.cumsum(lengths))[:-1]

    def _in_passes(
        self, sequences: list[Sequence], lengths: list[int], max_rows: int
    ) -> Iterator[tuple[slice, list[Sequence]]]:
        """So many rows of each sequence, cut into passes: which rows, and whose; a sequence is freed after its last."""
        owners = [sequence for sequence, n in zip(sequences, lengths, strict=True) for _ in range(n)]
        try:
            for start in range(0, len(owners), max_rows):
                stop = min(start + max_rows, len(owners))
                yield slice(start, stop), owners[start:stop]
                unfinished = owners[stop] if stop < len(owners) else None
                for sequence in owners[start:stop]:
                    if sequence is not unfinished:
                        self.free(sequence)
        finally:
            for sequence in sequences:
                self.free(sequence)

    def read(
        self,
        ids: Ids[int],
        sequences: list[Sequence],
        wants: Ids[int],
        sampling: Ids[Options] = (),
        kept: Ids[int] = (),
    ) -> tuple[list[int], np.ndarray]:
        """As `forward`, safe with several threads -> ids drawn, and a copy of logits float32 [len(kept), n_vocab].

        kept: which of the rows of logits to copy.
        """
        with self._lock:
            logits = self.forward(ids, sequences, wants, sampling)
            return self._sampled.tolist(), logits[list(kept)]

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

    def run_part(
        self,
        sequence: Sequence,
        ids: Ids[int],
        layers: tuple[int, int],
        stream: np.ndarray | None = None,
        logits: bool = False,
    ) -> dict[str, np.ndarray]:
        """Some layers alone, as in `forward` -> copies of what they leave in x, qkv and projected, by these names.

        layers: (0, 0) is the embedding alone; (n_layer, n_layer) with logits the head alone.
        stream: the residual stream that a first layer above 0 starts from, float32 [len(ids), n_embd].
        logits: of every row too, float32 [len(ids), n_vocab].
        """
        n, n_embd = len(ids), self.config.n_embd
        widths = {"x": n_embd, "qkv": 3 * n_embd, "projected": n_embd}
        with self._lock:
            self._reserve(n, n if logits else 0)
            if stream is not None:
                self._buffers["x"][:n, :n_embd] = stream
            result = self.forward(ids, [sequence] * n, range(n) if logits else (), layers=layers)
            copies = {name: self._buffers[name][:n, :width].copy() for name, width in widths.items()}
            return {**copies, "logits": result.copy()} if logits else copies

    def outputs(self, ids: Ids[int], sequences: list[Sequence], wants: Ids[int]) -> tuple[np.ndarray, np.ndarray]:
        """`forward` for a caller that takes turns with others: copies of the rows in wants.

        They are logits float32 [n, n_vocab] and the states that these are read from, after ln_f, float32 [n, n_embd].
        """
        with self._lock:
            logits = self.forward(ids, sequences, wants, is_observed=True).copy()
            return logits, self._buffers["ln_2"][: len(wants), : self.config.n_embd].copy()

    def check_room(self, ids: Ids[int], max_tokens: int) -> None:
        """Raise ValueError unless there is a prompt and it fits the context together with max_tokens new ids."""
        if not ids:
            raise ValueError("the prompt has no tokens; begin with the model's end of text")
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}; it must be at least 1")
        n_ctx, wanted = self.config.n_ctx, len(ids) + max_tokens
        if wanted > n_ctx:
            raise ValueError(
                f"prompt of {len(ids)} tokens and {max_tokens} new ones make {wanted}; this model's context is "
                f"{n_ctx}: shorten one of them"
            )


_ENGINES = weakref.WeakSet[GPT2]()
_FORK = threading.RLock()
_HELD: list[GPT2] = []


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
