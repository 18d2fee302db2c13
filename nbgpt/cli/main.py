"""The command line: the list of subcommands, and the exit code and message for each kind of error."""

from __future__ import annotations

import argparse
import io
import sys

from .bench import define_bench
from .compress import define_compress, define_decompress
from .convert import define_convert
from .download import define_download
from .embed import define_embed
from .eval import define_eval
from .explain import define_explain
from .generate import define_generate
from .info import define_info
from .parser import Parser
from .repl import define_repl
from .score import define_score
from .serve import define_serve
from .terminal import give_up_output, note
from .warmup import define_warmup

_EXAMPLES = """\
examples:
  python -m nbgpt generate "It was a dark and stormy night"
  echo "Once upon a time" | python -m nbgpt generate --max-tokens 50 --seed 1
  python -m nbgpt download gpt2 && python -m nbgpt generate --model gpt2 "Alan Turing"
"""


def _new_parser() -> Parser:
    parser = Parser(
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
        define_compress,
        define_decompress,
        define_serve,
        define_embed,
        define_explain,
        define_bench,
        define_warmup,
    ):
        define(commands)
    return parser


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit code and message for an expected error; any other is raised again with its traceback."""
    from ..backend.kernel_cache import KernelError
    from ..conversion.hub import DownloadError
    from ..formats import FormatError

    if isinstance(error, KeyboardInterrupt):
        return 130, ""
    if isinstance(error, BrokenPipeError):
        return 141, ""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return 1, f"{error.filename}: {error.strerror}"
    if isinstance(error, (FormatError, DownloadError, KernelError, ImportError, OSError)):
        return 1, str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return 1, f"out of memory: {error}; take a smaller model or another --dtype"
    if isinstance(error, ValueError):
        return 2, str(error)
    raise error


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; None: the process's own.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted (Ctrl-C), 141 the reader closed the pipe.
    """
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
