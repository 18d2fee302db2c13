"""The goals of speed that need no other engine: what is wanted beside what is measured, as Markdown and JSON.

    python bench/goals.py [--only SECTION ...] [--output FOLDER]

Each function of SECTIONS yields rows of the table of goals. A section is written as soon as it ends, beside those
that the results have already. What is compared with each other is measured in turn, and medians are shown. Nothing else
should run on the machine meanwhile; all of it takes about ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median
from typing import get_args

from batch_rate import batch_rate
from engine.joining import joining
from engine.speculation import speculation
from figures import Figure, Results, medians, share
from tasks.features import features
from text.mixed import mixed

from nbgpt import weights
from nbgpt.abi.layout import PAGE, padded
from nbgpt.abi.targets import current_target
from nbgpt.analysis import benchmark
from nbgpt.analysis.benchmark import Row, Test, elapsed, random_weights
from nbgpt.backend.kernel_cache import load_kernels
from nbgpt.engine.engine import Engine
from nbgpt.engine.kv_cache import KVDtype
from nbgpt.engine.model_runner import ModelRunner
from nbgpt.engine.request import Request
from nbgpt.paths import shipped
from nbgpt.sampling.params import SamplingParams
from nbgpt.weights import DTYPES, LAYOUT, Weights

PROMPT = "Once upon a time"
N_PROMPT = 4  # tokens of it
MIB = 1 << 20


def share_of_row(model: ModelRunner, test: Test, goal: float | None, repetitions: int = 3) -> Figure:
    """What decoding reaches of the read bandwidth, a prompt of the float32 peak: the middle one of three rows."""

    def value(row: Row) -> float:
        return row.read_share if test.n_gen else row.fma_share

    row = sorted((benchmark.measure(model, test, repetitions) for _ in range(3)), key=value)[1]
    limit, reached = (
        ("read bandwidth", f"{row.gb_s:.1f} GB/s") if test.n_gen else ("peak", f"{row.gflop_s:.0f} GFLOP/s")
    )
    kv = ", KV float16" * (model.cache.dtype == "float16")
    what = f"{model.weights.path.name} {model.weights.dtype}{kv}, {test}: share of the {limit}"
    return share(what, value(row), goal, f"{median(row.speeds):.1f} tokens/s, {reached}")


def speed(model: ModelRunner, test: Test) -> Callable[[], float]:
    """A call that measures tokens a second."""
    return lambda: test.n_tokens / elapsed(model, test)


# --- 124M shapes -----------------------------------------------------------------------------------------------------


def decode() -> Iterator[Figure]:
    """Single tokens, as a share of the bandwidth that reading alone reaches."""
    for dtype, goal in {"float32": 0.9, "float16": None, "bfloat16": None, "int8": 0.85, "int4": 0.75}.items():
        yield share_of_row(ModelRunner(random_weights("124M", dtype), 2), Test(n_gen=128), goal)


def prefill() -> Iterator[Figure]:
    """A prompt, as a share of the float32 peak."""
    for dtype, goal in {"float32": 0.65, "float16": None, "bfloat16": None, "int8": None, "int4": None}.items():
        yield share_of_row(ModelRunner(random_weights("124M", dtype), 2), Test(n_prompt=512), goal, repetitions=5)


def depth() -> Iterator[Figure]:
    """Single tokens behind 896 others, the bytes of the KV cache counted."""
    for dtype in DTYPES:
        loaded = random_weights("124M", dtype)
        for kv_dtype in get_args(KVDtype):
            yield share_of_row(ModelRunner(loaded, 2, kv_dtype), Test(n_gen=128, n_depth=896), 0.8)


def batch() -> Iterator[Figure]:
    """Eight sequences against one."""
    model = ModelRunner(random_weights("124M", "int8"), 2)
    got = medians({n: speed(model, Test(n_gen=64, n_sequences=n)) for n in (1, 8)}, 9)
    measured = f"{got[8] / got[1]:.2f} ({got[8]:.0f} and {got[1]:.0f} tokens/s)"
    yield Figure("124M int8: tokens/s of 8 sequences / of 1", "≥ 4", measured, got[8] >= 4 * got[1])


def generate() -> Iterator[Figure]:
    """The default command, streaming to a pipe, against single tokens at the same depth."""
    n = 127  # tokens after the first
    for dtype in ("int8", "int4"):
        with tempfile.TemporaryDirectory() as folder:
            file = save(random_weights("124M", dtype), Path(folder) / "model.safetensors")
            runs = {"bench": speed(ModelRunner(weights.load(file), 2), Test(n_gen=n, n_depth=N_PROMPT))}
            for options in ((), ("--top-p", "0.9")):
                runs[" ".join(("generate", *options))] = streaming_speed(file, n, options)
            bench, *others = medians(runs, 9).items()
        for name, tokens_s in others:
            figures = f"{tokens_s:.1f} of {bench[1]:.1f} tokens/s"
            yield share(f"124M {dtype}: `{name}` / bench", tokens_s / bench[1], 0.95, figures)


def streaming_speed(file: Path, n: int, options: tuple[str, ...]) -> Callable[[], float]:
    """A call that runs the command: tokens a second between the first piece of text in the pipe and the last."""
    arguments = ["generate", PROMPT, "--model", str(file), "--max-tokens", str(n + 1), "--seed", "1", "--quiet"]

    def run() -> float:
        with subprocess.Popen([sys.executable, "-m", "nbgpt", *arguments, *options], stdout=subprocess.PIPE) as process:
            pipe = process.stdout
            assert pipe
            times = [time.perf_counter() for _ in iter(lambda: os.read(pipe.fileno(), 1 << 16), b"")]
        assert process.returncode == 0
        return n / (times[-1] - times[0])

    return run


# --- Beside others ---------------------------------------------------------------------------------------------------


def busy() -> Iterator[Figure]:
    """Beside a thread that computes in Python all the time, and beside a process that does."""
    loaded, test = random_weights("124M", "int8"), Test(n_gen=64)
    company = {"a busy Python thread": busy_thread, "a busy process": busy_process}
    for n, goal in {2: 0.4, 1: 0.75}.items():
        alone = writing(Engine(loaded, n), test.n_gen)
        got = medians({"": alone, **{name: beside(other, alone) for name, other in company.items()}}, 5)
        for name in company:
            figures = f"{got[name]:.1f} of {got['']:.1f} tokens/s"
            what = f"124M int8, {test} with {n} threads, beside {name} / undisturbed"
            yield share(what, got[name] / got[""], goal, figures)


def writing(model: Engine, n: int) -> Callable[[], float]:
    """A call that generates n tokens as users do, by multi-step decode -> tokens a second."""

    def write() -> float:
        one = Request(model.config, [0], SamplingParams(max_tokens=n))
        assert len(list(model.tokens(one))) == n
        return one.timing.decode_speed

    return write


def beside(company: Callable[[], AbstractContextManager[None]], run: Callable[[], float]) -> Callable[[], float]:
    """The same call in such company."""

    def measure() -> float:
        with company():
            time.sleep(0.2)  # until the system has spread the two over its cores
            return run()

    return measure


@contextmanager
def busy_thread() -> Iterator[None]:
    """In this process, asking for the interpreter's lock all the time."""
    stop = threading.Event()

    def count() -> None:
        while not stop.is_set():
            sum(n for n in range(1000))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def busy_process() -> Iterator[None]:
    """With an interpreter of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def threads() -> Iterator[Figure]:
    """More threads than cores."""
    loaded = random_weights("124M", "int8")
    models = {n: ModelRunner(loaded, n) for n in (1, 2, 4, 8)}
    for test in (Test(n_gen=64), Test(n_prompt=512)):
        got = medians({n: speed(model, test) for n, model in models.items()}, 5)
        best = max(got.values())
        for n in (4, 8):
            what = f"124M int8, {test}, {n} threads / the best number"
            yield share(what, got[n] / best, 0.5, f"{got[n]:.0f} of {best:.0f} tokens/s")


# --- Sizes and memory ------------------------------------------------------------------------------------------------


def sizes() -> Iterator[Figure]:
    """Larger models, at the same share of the bandwidth."""
    for size in ("355M", "774M", "1558M"):
        yield share_of_row(ModelRunner(random_weights(size, "int8"), 2), Test(n_gen=32), 0.85)


def memory() -> Iterator[Figure]:
    """What a process that generates 128 tokens has resident at most, besides the file and the KV cache in use."""
    for size, goal in {"1558M": 150, "124M": 110, "story-34m": 110}.items():
        with tempfile.TemporaryDirectory() as folder:
            if size == "story-34m":
                file = shipped("story-34m-int8.safetensors")
            else:
                file = save(random_weights(size, "int8"), Path(folder) / "model.safetensors")
            peak = peak_of("generate", PROMPT, "--model", str(file), "--max-tokens", "128", "--seed", "1", "--quiet")
            cache = ModelRunner(weights.load(file), 1).cache
            kv, n_file = cache.position_bytes * padded(N_PROMPT + 128, PAGE), file.stat().st_size
        rest = (peak - n_file - kv) / MIB
        measured = f"{rest:.0f} MiB ({peak / MIB:.0f} resident, file {n_file / MIB:.0f}, KV {kv / MIB:.0f})"
        yield Figure(f"{size} int8, `generate`: the rest of its memory", f"≤ {goal} MiB", measured, rest <= goal)


_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_of(*arguments: str) -> int:
    """Bytes that a command has resident at most. A small parent starts it: a child's peak begins with its parent's."""
    command = [sys.executable, "-c", _PEAK, sys.executable, "-m", "nbgpt", *arguments]
    return 1024 * int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def save(loaded: Weights, file: Path) -> Path:
    """Weights that are in memory as a native file."""
    metadata = {"format": "nbgpt", "layout": LAYOUT, "name": str(loaded.path), "dtype": loaded.dtype, "bos": "false"}
    metadata["config"] = json.dumps(loaded.config.to_dict())
    tensors = {
        name: {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [entry.start, entry.stop]}
        for name, entry in loaded.entries.items()
    }
    header = json.dumps({"__metadata__": metadata, **tensors}).encode()
    header += b" " * (-(8 + len(header)) % 64)
    with file.open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        out.write(loaded.block.data)
    return file


# --- Starting --------------------------------------------------------------------------------------------------------


def start() -> Iterator[Figure]:
    """Whole processes, kernels compiled before, from their start to the first byte of text."""
    command = [sys.executable, "-m", "nbgpt", "generate", PROMPT, "--max-tokens", "2", "--seed", "1", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    samples = []
    for _ in range(20):
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.read(1)
            samples.append(time.perf_counter() - began)
    middle = median(samples)
    measured = f"{middle:.3f} s (of 20: {min(samples):.3f} to {max(samples):.3f})"
    yield Figure("story-34m int8: cold start to the first byte", "≤ 0.40 s", measured, middle <= 0.4)


def compiling() -> Iterator[Figure]:
    """The kernels for one type of weights, with an empty cache."""
    environment = {**os.environ, "NUMBA_CPU_NAME": current_target().cpu}  # so that a wheel's own objects do not count
    for dtype in DTYPES:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "nbgpt", "warmup", "--dtype", dtype]
            began = time.perf_counter()
            subprocess.run(command, env={**environment, "NBGPT_HOME": folder}, check=True, capture_output=True)
            seconds = time.perf_counter() - began
        yield Figure(f"{dtype}: first compilation", "≤ 20 s", f"{seconds:.1f} s", seconds <= 20)


# --- AVX2 ------------------------------------------------------------------------------------------------------------


def avx2() -> Iterator[Figure]:
    """Kernels compiled for haswell against those for this CPU."""
    for dtype in DTYPES:
        loaded = random_weights("124M", dtype)
        models = {"native": ModelRunner(loaded, 2), "haswell": compiled_for("haswell", loaded)}
        for test, goal in {Test(n_gen=64): 0.6, Test(n_prompt=512): 0.35}.items():
            got = medians({name: speed(model, test) for name, model in models.items()}, 5)
            figures = f"{got['haswell']:.1f} of {got['native']:.1f} tokens/s"
            what = f"124M {dtype}, {test}: haswell / {current_target().cpu}"
            yield share(what, got["haswell"] / got["native"], goal, figures)


def compiled_for(cpu: str, loaded: Weights) -> ModelRunner:
    """A model whose kernels are for another CPU, in this process, so that the two can take turns."""
    os.environ["NUMBA_CPU_NAME"] = cpu
    load_kernels.cache_clear()
    try:
        return ModelRunner(loaded, 2)
    finally:
        del os.environ["NUMBA_CPU_NAME"]
        load_kernels.cache_clear()


# --- Results ---------------------------------------------------------------------------------------------------------

_OF_SPEED = (decode, prefill, depth, batch, generate, speculation, joining, busy, threads, features, mixed, batch_rate)
_OF_SIZE = (sizes, memory, start, compiling, avx2)
SECTIONS = {section.__name__: section for section in _OF_SPEED + _OF_SIZE}


def main() -> None:
    """Measure sections and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything, folder = list(SECTIONS), Path(__file__).parent / "results"
    parser.add_argument("--only", nargs="+", choices=everything, default=everything, metavar="SECTION")
    parser.add_argument("--output", type=Path, default=folder, help="where goals.md and goals.json are; %(default)s")
    options = parser.parse_args()
    head = "# Goals that need no other engine\n\nMade by `python bench/goals.py`. Two threads, unless said."
    results = Results(options.output / "goals.json", head, SECTIONS)
    for name in options.only:
        figures = []
        for figure in SECTIONS[name]():
            print(f"{name}: {figure.what}: {figure.measured}; goal {figure.goal or 'none'}", file=sys.stderr)
            figures.append(figure)
        results.keep(name, figures)


if __name__ == "__main__":
    main()
