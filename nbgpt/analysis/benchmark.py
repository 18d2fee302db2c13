"""Tokens a second by llama-bench's method, beside the machine's roofline.

pp: a prompt of random ids is read. tg: random ids are decoded, one of each sequence a step. Each test runs once to warm
up and then `repetitions` times. A run begins with an empty KV cache; in a test with a depth, that many tokens are read
before the clock starts. Tokenizing and sampling are not measured.
"""

from __future__ import annotations

import contextlib
import json
import platform
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..config import OFFICIAL, GPT2Config
from ..engine.kv_cache import KVDtype, Sequence
from ..engine.model_runner import MAX_ROWS, MAX_THREADS, ModelRunner
from ..sampling.params import SamplingParams
from ..version import __version__
from ..weights import NUMPY, Weights, in_memory
from ..weights.bfloat16 import to_bfloat16
from .roofline import Roofline, measure_roofline

_GGML_TYPES: dict[KVDtype, str] = {"float32": "f32", "float16": "f16"}
_SIZES = {"124M": "gpt2", "355M": "gpt2-medium", "774M": "gpt2-large", "1558M": "gpt2-xl"}


@dataclass(frozen=True)
class Test:
    """A prompt (n_prompt), or tokens that sequences decode together (n_gen), each after n_depth cached tokens."""

    n_prompt: int = 0
    n_gen: int = 0
    n_depth: int = 0
    n_sequences: int = 1

    def __str__(self) -> str:
        """The name that llama-bench gives the test, followed by b8 if there are eight sequences."""
        name = f"pp{self.n_prompt}" if self.n_prompt else f"tg{self.n_gen}"
        depth = f" @ d{self.n_depth}" if self.n_depth else ""
        return name + depth + (f" b{self.n_sequences}" if self.n_sequences > 1 else "")

    @property
    def n_tokens(self) -> int:
        """Tokens that are measured."""
        return self.n_prompt or self.n_gen * self.n_sequences

    @property
    def mean_position(self) -> float:
        """Mean number of positions that a token attends to, itself included."""
        return self.n_depth + ((self.n_prompt or self.n_gen) + 1) / 2


@dataclass(frozen=True)
class Row:
    """The measurements of a test with some number of threads."""

    weights: Weights
    n_threads: int
    kv_dtype: KVDtype
    test: Test
    test_time: str  # start of the test, UTC
    samples: list[float]  # seconds of each repetition
    first_token: float | None  # median seconds from the prompt to the token sampled after it; None without a prompt
    bytes_a_step: float  # of weights and KV cache that a decode step reads; 0 for a prompt
    flop_a_token: float
    peak_memory: int  # maximum of resident bytes, weights included
    before: Roofline  # measured before the test
    after: Roofline  # measured after it

    @property
    def speeds(self) -> list[float]:
        """Tokens a second of each repetition."""
        return [self.test.n_tokens / seconds for seconds in self.samples]

    @property
    def gb_s(self) -> float:
        """Gigabytes a second that decode steps read; 0 for a prompt."""
        return statistics.fmean(self.speeds) / self.test.n_sequences * self.bytes_a_step / 1e9

    @property
    def read_share(self) -> float:
        """`gb_s` / read bandwidth, the larger one of before and after the test: a busy neighbour lowers either."""
        return self.gb_s / max(self.before.read_gb_s, self.after.read_gb_s)

    @property
    def gflop_s(self) -> float:
        return statistics.fmean(self.speeds) * self.flop_a_token / 1e9

    @property
    def fma_share(self) -> float:
        """`gflop_s` / float32 peak, the larger one of before and after the test; integer dot products may exceed it."""
        return self.gflop_s / max(self.before.fma_gflop_s, self.after.fma_gflop_s)

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON: llama-bench's keys, then our own."""
        weights = self.weights
        theirs = {
            "build_commit": f"nbgpt {__version__}",
            "cpu_info": cpu_name(),
            "model_filename": str(weights.path),
            "model_type": _model_type(weights),
            "model_size": weights.block.size,
            "model_n_params": weights.config.n_parameters,
            "n_batch": MAX_ROWS,
            "n_threads": self.n_threads,
            "type_k": _GGML_TYPES[self.kv_dtype],
            "type_v": _GGML_TYPES[self.kv_dtype],
            "n_prompt": self.test.n_prompt,
            "n_gen": self.test.n_gen,
            "n_depth": self.test.n_depth,
            "test_time": self.test_time,
            "avg_ns": round(1e9 * statistics.fmean(self.samples)),
            "stddev_ns": round(1e9 * _deviation(self.samples)),
            "avg_ts": statistics.fmean(self.speeds),
            "stddev_ts": _deviation(self.speeds),
            "samples_ns": [round(1e9 * seconds) for seconds in self.samples],
            "samples_ts": self.speeds,
        }
        ours = {
            "test": str(self.test),
            "dtype": weights.dtype,
            "n_sequences": self.test.n_sequences,
            "first_token_ns": None if self.first_token is None else round(1e9 * self.first_token),
            "bytes_a_step": self.bytes_a_step,
            "flop_a_token": self.flop_a_token,
            "peak_memory": self.peak_memory,
            **{name: getattr(self, name) for name in ("gb_s", "read_share", "gflop_s", "fma_share")},
            **{f"{name}_before": value for name, value in asdict(self.before).items()},
            **{f"{name}_after": value for name, value in asdict(self.after).items()},
        }
        return {**theirs, **ours}


def as_table(rows: Iterable[Row]) -> Iterator[str]:
    """Lines of a Markdown table, each yielded as soon as its row has been measured."""
    yield "| model | size | params | threads | test | t/s | first token | memory read | float32 peak | resident |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        weights, speeds = row.weights, row.speeds
        cells = [
            _model_type(weights),
            f"{weights.block.size / 2**20:.1f} MiB",
            f"{weights.config.n_parameters / 1e6:.1f} M",
            str(row.n_threads),
            str(row.test),
            f"{statistics.fmean(speeds):.1f} ± {_deviation(speeds):.1f}",
            "" if row.first_token is None else f"{1e3 * row.first_token:.1f} ms",
            f"{row.gb_s:.1f} GB/s, {row.read_share:.0%}" if row.bytes_a_step else "",
            f"{row.gflop_s:.0f} GFLOP/s, {row.fma_share:.0%}",
            f"{row.peak_memory / 2**20:.0f} MiB",
        ]
        yield f"| {' | '.join(cells)} |"


def as_json(rows: Iterable[Row]) -> Iterator[str]:
    """One JSON list with an object for each row."""
    yield json.dumps([row.to_dict() for row in rows], indent=2)


def _deviation(samples: list[float]) -> float:
    return statistics.stdev(samples) if len(samples) > 1 else 0.0


def _model_type(weights: Weights) -> str:
    return f"{weights.metadata.get('name') or weights.path.stem} {weights.dtype}"


def cpu_name() -> str:
    """Model name of the CPU, as the system reports it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def random_weights(size: str, dtype: str) -> Weights:
    """Random weights of an official size (124M, 355M, 774M, 1558M). Raises ValueError for another size."""
    if size not in _SIZES:
        raise ValueError(f"random is {size!r}; choose one of {', '.join(_SIZES)}")
    random = np.random.default_rng(0)

    def fill(name: str, kind: str, n: int) -> np.ndarray:
        if kind == "U8":
            return random.integers(0, 256, n, np.uint8)
        if name.endswith((".scale", ".offset")):
            return np.full(n, 3e-4, np.float16)
        numbers: np.ndarray = random.standard_normal(n, np.float32) * np.float32(0.02)
        return to_bfloat16(numbers) if kind == "BF16" else numbers.astype(NUMPY[kind], copy=False)

    return in_memory(OFFICIAL[_SIZES[size]], dtype, f"random {size}", fill)


def weight_bytes(weights: Weights) -> int:
    """Bytes of the weights that one pass reads: all but the position embedding."""
    skipped = ["wpe.weight", "tokenizer", "score.weight"]
    if not weights.config.tied_embeddings:
        skipped += ["wte.weight", "wte.weight.scale"]
    return sum(entry.stop - entry.start for name, entry in weights.entries.items() if name not in skipped)


def step_bytes(runner: ModelRunner, test: Test) -> float:
    """Mean number of bytes of weights and KV cache that a decode step reads."""
    n_bytes: float = runner.cache.position_bytes * test.mean_position * test.n_sequences
    return weight_bytes(runner.weights) + n_bytes


def flop_a_token(config: GPT2Config, test: Test) -> float:
    """Mean number of multiplications and additions for a token; for a prompt without logits, which it does not need."""
    block = 2 * (4 * config.n_embd**2 + 2 * config.n_embd * config.n_inner) + 4 * config.n_embd * test.mean_position
    return config.n_layer * block + (2.0 * config.n_embd * config.n_vocab if test.n_gen else 0.0)


def plan(
    config: GPT2Config, n_prompt: Iterable[int], n_gen: Iterable[int], depths: Iterable[int], batches: Iterable[int]
) -> list[Test]:
    """The tests of all combinations; prompts are measured with one sequence.

    Args:
        config: the model's.
        n_prompt: lengths of prompts; 0: none.
        n_gen: numbers of tokens to decode; 0: none.
        depths: numbers of tokens in the cache beforehand.
        batches: numbers of sequences that decode together.

    Returns:
        The tests, prompts first.

    Raises:
        ValueError: a test does not fit the context, a number of sequences is below 1, or there is no test.
    """
    tests = [Test(n_prompt=n, n_depth=depth) for depth in depths for n in n_prompt if n]
    tests += [Test(0, n, depth, batch) for depth in depths for batch in batches for n in n_gen if n]
    for test in tests:
        if test.n_sequences < 1:
            raise ValueError(f"n-sequences is {test.n_sequences}; it must be at least 1")
        n_tokens = test.n_depth + (test.n_prompt or test.n_gen)
        if n_tokens > config.n_ctx:
            raise ValueError(f"{test} needs {n_tokens} positions; this model's context is {config.n_ctx}")
    if not tests:
        raise ValueError("nothing to measure: n-prompt and n-gen are 0")
    return tests


def run(
    weights: Weights, tests: list[Test], threads: list[int], repetitions: int, kv_dtype: KVDtype = "float32"
) -> Iterator[Row]:
    """Run each test with each number of threads. Raises ValueError for numbers out of range, before anything runs."""
    if repetitions < 1:
        raise ValueError(f"repetitions is {repetitions}; it must be at least 1")
    for n_threads in threads:
        if not 1 <= n_threads <= MAX_THREADS:
            raise ValueError(f"threads is {n_threads}; it must be from 1 to {MAX_THREADS}")
    return _rows(weights, tests, threads, repetitions, kv_dtype)


def _rows(
    weights: Weights, tests: list[Test], threads: list[int], repetitions: int, kv_dtype: KVDtype
) -> Iterator[Row]:
    for n_threads in threads:
        runner = ModelRunner(weights, n_threads, kv_dtype)
        limits = None
        for test in tests:
            row = measure(runner, test, repetitions, limits)
            limits = row.after
            yield row


def measure(runner: ModelRunner, test: Test, repetitions: int, before: Roofline | None = None) -> Row:
    """Run a test once to warm up, then `repetitions` times. before: the roofline measured last; None: measure it."""
    before = before or measure_roofline(runner)
    began = datetime.now(timezone.utc)
    forget_peak()
    samples = [elapsed(runner, test, seed) for seed in range(repetitions + 1)][1:]
    peak = peak_memory()
    first_token = None
    if test.n_prompt:
        first_token = statistics.median(elapsed(runner, test, seed, draw=True) for seed in range(repetitions))
    return Row(
        weights=runner.weights,
        n_threads=runner.thread_pool.n_threads,
        kv_dtype=runner.cache.dtype,
        test=test,
        test_time=began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        samples=samples,
        first_token=first_token,
        bytes_a_step=step_bytes(runner, test) if test.n_gen else 0.0,
        flop_a_token=flop_a_token(runner.config, test),
        peak_memory=peak,
        before=before,
        after=measure_roofline(runner),
    )


def elapsed(runner: ModelRunner, test: Test, seed: int = 0, *, draw: bool = False) -> float:
    """Seconds of one run of a test, from an empty cache. draw: sample the token after the prompt, too."""
    random = np.random.default_rng(seed)

    def ids(n: int) -> list[int]:
        drawn: list[int] = random.integers(0, runner.config.n_vocab, n).tolist()
        return drawn

    sequences = [Sequence() for _ in range(test.n_sequences)]
    try:
        for sequence in sequences:
            if test.n_depth:
                runner.append(sequence, ids(test.n_depth))
        prompt, steps = ids(test.n_prompt), [ids(test.n_sequences) for _ in range(test.n_gen)]
        start = time.perf_counter()
        if draw:
            runner.append(sequences[0], prompt, [SamplingParams().draw_params(0)])
        elif prompt:
            runner.append(sequences[0], prompt)
        for step in steps:
            runner.decode(sequences, step)
        return time.perf_counter() - start
    finally:
        for sequence in sequences:
            runner.cache.truncate(sequence, 0)


def peak_memory() -> int:
    """Maximum of resident bytes of this process since `forget_peak`; 0 where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def forget_peak() -> None:
    """Reset the peak to what is resident now (proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
