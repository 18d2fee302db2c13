"""The command line: which subcommands there are, and what becomes of errors."""

from __future__ import annotations

import argparse
import io
import sys
from typing import TYPE_CHECKING

from .commands.evaluate import define_eval
from .commands.generate import define_generate
from .commands.lines import define_embed, define_score
from .commands.models import define_convert, define_download, define_info, define_warmup
from .commands.parser import DTYPES as _DTYPES
from .commands.parser import Parser as _Parser
from .commands.parser import add as _add
from .commands.repl import define_repl
from .terminal import give_up_output, note, write

if TYPE_CHECKING:
    from .commands.parser import Commands as _Commands

_EXAMPLES = """\
examples:
  python -m nbgpt generate "It was a dark and stormy night"
  echo "Once upon a time" | python -m nbgpt generate --max-tokens 50 --seed 1
  python -m nbgpt download gpt2 && python -m nbgpt generate --model gpt2 "Alan Turing"
"""


def _new_parser() -> _Parser:
    parser = _Parser(
        prog="python -m nbgpt",
        description="GPT-2 on CPUs: official weights in, text out.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for define in (
        define_generate,
        define_repl,
        define_convert,
        define_download,
        define_info,
        define_eval,
        define_score,
        define_embed,
        _define_bench,
        define_warmup,
    ):
        define(commands)
    return parser


# --- bench -----------------------------------------------------------------------------------------------------------


def _define_bench(commands: _Commands) -> None:
    command = _add(commands, "bench", "tokens a second, by llama-bench's method", _bench)
    option = command.add_argument
    option("-m", "--model", help="as for generate; default: the embedded model")
    option("--dtype", choices=_DTYPES, help="as for generate")
    option("--random", metavar="SIZE", help="random weights of an official size: 124M, 355M, 774M or 1558M")
    option("-p", "--n-prompt", type=_numbers, default=[512], help="lengths of prompts; 0: none; default: 512")
    option("-n", "--n-gen", type=_numbers, default=[128], help="tokens to generate; 0: none; default: 128")
    option("-d", "--n-depth", type=_numbers, default=[0], help="tokens in the context beforehand; default: 0")
    option("-t", "--threads", type=_numbers, help="default: the physical cores there are")
    option("-b", "--n-batch", type=_numbers, default=[1], help="sequences that generate together; default: 1")
    option("-r", "--repetitions", type=int, default=5, help="default: %(default)s, after one to warm up")
    option("--json", action="store_true", help="a list with an object a row instead of a table")


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, as 1,2,4") from None
    if min(numbers) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} has a negative number")
    return numbers


def _bench(options: argparse.Namespace) -> None:
    from . import benchmark
    from .library import open_model
    from .team import default_threads

    if options.repetitions < 1:
        raise ValueError(f"repetitions is {options.repetitions}; it must be at least 1")
    if min(options.n_batch) < 1:
        raise ValueError(f"n-batch is {min(options.n_batch)}; it must be at least 1")
    if options.random:
        weights = benchmark.random_weights(options.random, options.dtype or "int8")
    else:
        weights = open_model(options.model, options.dtype)
    threads = options.threads or [default_threads()]
    rows = benchmark.run(
        weights, options.n_prompt, options.n_gen, options.n_depth, threads, options.n_batch, options.repetitions
    )
    for line in benchmark.as_json(rows) if options.json else benchmark.as_table(rows):
        write(line + "\n")


# --- main ------------------------------------------------------------------------------------------------------------


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit code and line for an error. Raises it again if it is not one to expect."""
    from .download import DownloadError
    from .formats import FormatError
    from .runtime import KernelError

    if isinstance(error, KeyboardInterrupt):
        return 130, ""
    if isinstance(error, BrokenPipeError):
        return 141, ""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return 1, f"{error.filename}: {error.strerror}"
    if isinstance(error, (FormatError, DownloadError, KernelError, OSError)):
        return 1, str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return 1, f"out of memory: {error}; take a smaller model or another --dtype"
    if isinstance(error, ValueError):
        return 2, str(error)
    raise error


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 nobody reads."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        options = _new_parser().parse_args(arguments)
        options.run(options)
        return 0
    except (Exception, KeyboardInterrupt) as error:
        code, line = _explain(error)
        if line:
            note(line)
        give_up_output()
        return code
