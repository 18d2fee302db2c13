"""`bench`: tokens a second, beside the machine's bandwidth and arithmetic."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .parser import DTYPES, add
from .terminal import write

if TYPE_CHECKING:
    from .parser import Commands


def define_bench(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "bench", "tokens a second, by llama-bench's method", _bench)
    option = command.add_argument
    option("-m", "--model", help="as for generate; default: the embedded model")
    option("--dtype", choices=DTYPES, help="as for generate")
    option("--kv-dtype", choices=("float32", "float16"), default="float32", help="as for generate")
    option("--random", metavar="SIZE", help="random weights of an official size: 124M, 355M, 774M or 1558M")
    option("-p", "--n-prompt", type=_numbers, default=[512], help="lengths of prompts; 0: none; default: 512")
    option("-n", "--n-gen", type=_numbers, default=[128], help="tokens to generate; 0: none; default: 128")
    option("-d", "--n-depth", type=_numbers, default=[0], help="tokens in the context beforehand; default: 0")
    option("-t", "--threads", type=_numbers, help="default: the physical cores that this process may use")
    option(
        "-b",
        "--n-sequences",
        type=_numbers,
        default=[1],
        help="texts that are generated together; not llama-bench's n_batch, the rows of a pass; default: 1",
    )
    option("-r", "--repetitions", type=int, default=5, help="default: %(default)s, after one to warm up")
    option("--json", action="store_true", help="a JSON list with an object for each row, instead of a table")


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, as 1,2,4") from None
    if min(numbers) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} has a negative number")
    return numbers


def _bench(options: argparse.Namespace) -> None:
    from ..analysis import benchmark
    from ..backend.topology import default_threads
    from ..conversion.registry import open_model

    if options.random and options.model:
        raise ValueError("a model and --random are given; choose one")
    if options.random:
        weights = benchmark.random_weights(options.random, options.dtype or "int8")
    else:
        weights = open_model(options.model, options.dtype)
    tests = benchmark.plan(weights.config, options.n_prompt, options.n_gen, options.n_depth, options.n_sequences)
    threads = options.threads or [default_threads()]
    rows = benchmark.run(weights, tests, threads, options.repetitions, options.kv_dtype)
    for line in benchmark.as_json(rows) if options.json else benchmark.as_table(rows):
        write(line + "\n")
