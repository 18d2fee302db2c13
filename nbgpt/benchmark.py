"""Tokens a second by llama-bench's method, beside what the machine allows.

pp: one prompt of random ids through the model. tg: single tokens from random ids, one after another, by `batch`
sequences at once. One run to warm up, then `repetitions`; the cache is emptied before each; tokenizing and sampling
are outside. depth: so many tokens are in the cache before the clock starts.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .config import OFFICIAL
from .job import PROBE_FLOATS, PROBE_MULTIPLY_ADD, PROBE_READ
from .kv_cache import Sequence
from .model import GPT2
from .weights import Weights, in_memory

_READ_BYTES = 512 << 20
_PROBE_TRIES = 7
_SIZES = {"124M": "gpt2", "355M": "gpt2-medium", "774M": "gpt2-large", "1558M": "gpt2-xl"}


@dataclass(frozen=True)
class Limits:
    """What the machine allows with some number of threads."""

    read_gb_s: float  # gigabytes (10^9) a second, from memory
    multiply_add_gflop_s: float


@dataclass(frozen=True)
class Row:
    """One test; the fields that llama-bench has carry its names."""

    model_type: str
    model_size: int  # bytes
    model_n_params: int
    dtype: str
    n_threads: int
    n_prompt: int
    n_gen: int
    n_depth: int
    n_batch: int
    samples_ts: list[float]  # tokens a second
    bytes_a_pass: float  # of weights and KV cache that one step of decoding reads; of weights for a prompt
    flop_a_token: float
    peak_memory: int  # bytes, of the process so far
    limits: Limits

    @property
    def avg_ts(self) -> float:
        return statistics.fmean(self.samples_ts)

    @property
    def stddev_ts(self) -> float:
        return statistics.stdev(self.samples_ts) if len(self.samples_ts) > 1 else 0.0

    @property
    def test(self) -> str:
        """As llama-bench calls it."""
        name = f"pp{self.n_prompt}" if self.n_prompt else f"tg{self.n_gen}"
        depth = f" @ d{self.n_depth}" if self.n_depth else ""
        return name + depth + (f" b{self.n_batch}" if self.n_batch > 1 else "")

    @property
    def gb_s(self) -> float:
        """Gigabytes a second that decoding read; 0 for a prompt."""
        return self.avg_ts / self.n_batch * self.bytes_a_pass / 1e9 if self.n_gen else 0.0

    @property
    def gflop_s(self) -> float:
        return self.avg_ts * self.flop_a_token / 1e9

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = [*self.__dataclass_fields__, "avg_ts", "stddev_ts", "test", "gb_s", "gflop_s"]
        values = {name: getattr(self, name) for name in names if name != "limits"}
        return {**values, **{name: getattr(self.limits, name) for name in Limits.__dataclass_fields__}}


def as_table(rows: Iterable[Row]) -> Iterator[str]:
    """Lines of a Markdown table, each as soon as it is measured."""
    yield "| model | size | params | threads | test | t/s | memory read | float32 peak | resident |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        limits = row.limits
        read = f"{row.gb_s:.1f} GB/s, {row.gb_s / limits.read_gb_s:.0%}" if row.n_gen else ""
        computed = f"{row.gflop_s:.0f} GFLOP/s, {row.gflop_s / limits.multiply_add_gflop_s:.0%}"
        yield (
            f"| {row.model_type} | {row.model_size / 2**20:.1f} MiB | {row.model_n_params / 1e6:.1f} M "
            f"| {row.n_threads} | {row.test} | {row.avg_ts:.1f} ± {row.stddev_ts:.1f} | {read} | {computed} "
            f"| {row.peak_memory / 2**20:.0f} MiB |"
        )


def as_json(rows: Iterable[Row]) -> Iterator[str]:
    """One list with an object a row."""
    yield json.dumps([row.to_dict() for row in rows], indent=2)


def random_weights(size: str, dtype: str) -> Weights:
    """Weights of an official size (124M, 355M, 774M, 1558M) without a file. Raises ValueError for another size."""
    if size not in _SIZES:
        raise ValueError(f"random is {size!r}; choose one of {', '.join(_SIZES)}")
    random = np.random.default_rng(0)

    def fill(name: str, kind: str, n: int) -> np.ndarray:
        if kind == "U8":
            return random.integers(0, 256, n, np.uint8)
        if name.endswith((".scale", ".offset")):
            return np.full(n, 3e-4, np.float16)
        numbers: np.ndarray = random.standard_normal(n, np.float32) * np.float32(0.02)
        return numbers.astype(np.float16) if kind == "F16" else numbers

    return in_memory(OFFICIAL[_SIZES[size]], dtype, f"random {size}", fill)


def _best_seconds(run: Callable[[], object], tries: int) -> float:
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def measure_limits(model: GPT2) -> Limits:
    """Read bandwidth (512 MiB, best of 7) and float32 multiply-add peak of the model's team."""
    data = np.ones(_READ_BYTES // 4, np.float32)
    items = len(data) // PROBE_FLOATS
    read = _best_seconds(lambda: model.probe(PROBE_READ, items, data), _PROBE_TRIES)
    items = 64 * model.team.n_threads
    multiply_add = _best_seconds(lambda: model.probe(PROBE_MULTIPLY_ADD, items, data), _PROBE_TRIES)
    return Limits(data.nbytes / read / 1e9, model.probe_flop * items / multiply_add / 1e9)


def weight_bytes(weights: Weights) -> int:
    """Bytes of the matrices, their scales and the vectors that one pass reads: all but the position table."""
    skipped = ["wpe.weight", "tokenizer", "score.weight"]
    if not weights.config.tied_embeddings:
        skipped += ["wte.weight", "wte.weight.scale"]
    return sum(entry.stop - entry.start for name, entry in weights.entries.items() if name not in skipped)


def flop_a_token(weights: Weights, depth: float, logits: bool) -> float:
    """Multiplications and additions for one token with `depth` positions before it."""
    config = weights.config
    block = 2 * (4 * config.n_embd**2 + 2 * config.n_embd * config.n_inner) + 4 * config.n_embd * depth
    return config.n_layer * block + (2.0 * config.n_embd * config.n_vocab if logits else 0.0)


def run(
    weights: Weights,
    n_prompt: list[int],
    n_gen: list[int],
    depths: list[int],
    threads: list[int],
    batches: list[int],
    repetitions: int,
) -> Iterator[Row]:
    """Every combination: prompts for batch 1, generation for each batch."""
    for n_threads in threads:
        model = GPT2(weights, n_threads)
        limits = measure_limits(model)
        forget_peak()
        tests = [(n, 0, depth, 1) for depth in depths for n in n_prompt if n]
        tests += [(0, n, depth, batch) for depth in depths for batch in batches for n in n_gen if n]
        for test in tests:
            yield _row(model, limits, test, repetitions)


def _row(model: GPT2, limits: Limits, test: tuple[int, int, int, int], repetitions: int) -> Row:
    n_prompt, n_gen, depth, batch = test
    weights, config = model.weights, model.config
    samples = [_speed(model, n_prompt, n_gen, depth, batch, seed) for seed in range(repetitions + 1)][1:]
    middle = depth + (n_prompt or n_gen) / 2
    kv_bytes = 2 * 4 * config.n_layer * config.n_embd * middle * batch
    return Row(
        model_type=f"{weights.metadata.get('name') or weights.path.stem} {weights.dtype}",
        model_size=weights.block.size,
        model_n_params=config.n_parameters,
        dtype=weights.dtype,
        n_threads=model.team.n_threads,
        n_prompt=n_prompt,
        n_gen=n_gen,
        n_depth=depth,
        n_batch=batch,
        samples_ts=samples,
        bytes_a_pass=weight_bytes(weights) + kv_bytes,
        flop_a_token=flop_a_token(weights, middle, bool(n_gen)),
        peak_memory=peak_memory(),
        limits=limits,
    )


def _speed(model: GPT2, n_prompt: int, n_gen: int, depth: int, batch: int, seed: int) -> float:
    """Tokens a second of one repetition."""
    random = np.random.default_rng(seed)
    sequences = [Sequence() for _ in range(batch)]
    try:
        for sequence in sequences:
            if depth:
                model.prefill(sequence, _random_ids(random, model, depth))
        if n_prompt:
            ids = _random_ids(random, model, n_prompt)
            start = time.perf_counter()
            model.prefill(sequences[0], ids)
            return n_prompt / (time.perf_counter() - start)
        steps = [_random_ids(random, model, batch) for _ in range(n_gen)]
        start = time.perf_counter()
        for ids in steps:
            model.decode(sequences, ids)
        return n_gen * batch / (time.perf_counter() - start)
    finally:
        for sequence in sequences:
            model.free(sequence)


def _random_ids(random: np.random.Generator, model: GPT2, n: int) -> list[int]:
    return [int(token) for token in random.integers(0, model.config.n_vocab, n)]


def peak_memory() -> int:
    """Most memory that this process has had resident since `forget_peak`, in bytes; 0 where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def forget_peak() -> None:
    """Count the peak anew, from what is resident now (proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
