"""The command line: the list of subcommands, and the exit code and message for each kind of error."""

from __future__ import annotations

import argparse
import io
import sys

from ..version import __version__
from .batch import define_batch
from .bench import define_bench
from .cache import define_cache
from .chat import define_chat
from .classify import define_classify
from .completion import define_completion
from .compress import define_compress, define_decompress
from .convert import define_convert
from .download import define_download
from .embed import define_embed
from .eval import define_eval
from .explain import define_explain
from .fewshot import define_fewshot
from .generate import define_generate
from .info import define_info
from .invocation import as_called, command, with_flags
from .lines import LinesSkippedError
from .parser import Parser
from .repl import define_repl
from .score import define_score
from .serve import define_serve
from .tasks import define_answer, define_rank, define_summarize, define_translate
from .terminal import give_up_output, note
from .train_classifier import define_train_classifier
from .verify import define_verify
from .warmup import define_warmup

_EXAMPLES = """\
examples:
  python -m nbgpt generate "It was a dark and stormy night"
  echo "Once upon a time" | python -m nbgpt generate --max-tokens 50 --seed 1
  python -m nbgpt download gpt2 && python -m nbgpt generate --model gpt2 "Alan Turing"

exit codes:
  0 done; 1 a file, a package or the machine failed; 2 wrong usage; 3 done but for lines that are named;
  130 interrupted; 141 the reader closed the pipe
"""


def new_parser(name: str | None = None) -> Parser:
    """The parser of the whole command line, of which docs and the man page are made too; name: of the program."""
    parser = Parser(
        prog=name or command(),
        description="GPT-2 on CPUs: official weights in, text out.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"nbgpt {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for define in (
        define_generate,
        define_repl,
        define_chat,
        define_convert,
        define_download,
        define_info,
        define_eval,
        define_summarize,
        define_translate,
        define_answer,
        define_rank,
        define_fewshot,
        define_batch,
        define_score,
        define_compress,
        define_decompress,
        define_serve,
        define_embed,
        define_classify,
        define_train_classifier,
        define_explain,
        define_bench,
        define_warmup,
        define_cache,
        define_verify,
    ):
        define(commands)
    define_completion(commands, new_parser)
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
    if isinstance(error, LinesSkippedError):
        return 3, str(error)
    if isinstance(error, ValueError):
        return 2, with_flags(str(error))
    raise error


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; None: the process's own.

    Returns:
        The exit code: 0 done; 1 a file, a package or the machine failed; 2 wrong usage; 3 done but for lines that
        are named; 130 interrupted (Ctrl-C); 141 the reader closed the pipe.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        options = new_parser().parse_args(arguments)
        options.run(options)
        return 0
    except (Exception, KeyboardInterrupt) as error:
        code, line = _explain(error)
        if line:
            note(as_called(line))
        give_up_output()
        return code
