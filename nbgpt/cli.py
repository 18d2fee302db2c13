"""The command line: one thin function a subcommand, which imports what it needs when it runs."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .layout import HEAD_DTYPE
from .terminal import decode, give_up_output, note, printable, read_text, write, write_pieces

if TYPE_CHECKING:
    from .stream import Stream
    from .text import Model

    _Commands = argparse._SubParsersAction["_Parser"]

_DTYPES = tuple(HEAD_DTYPE)
_EXAMPLES = """\
examples:
  python -m nbgpt generate "It was a dark and stormy night"
  echo "Once upon a time" | python -m nbgpt generate --max-tokens 50 --seed 1
  python -m nbgpt download gpt2 && python -m nbgpt generate --model gpt2 "Alan Turing"
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"nbgpt: {printable(message)}; `{self.prog} --help` explains\n")


def _new_parser() -> _Parser:
    parser = _Parser(
        prog="python -m nbgpt",
        description="GPT-2 on CPUs: official weights in, text out.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for define in (
        _define_generate,
        _define_convert,
        _define_download,
        _define_info,
        _define_eval,
        _define_bench,
        _define_warmup,
    ):
        define(commands)
    return parser


def _add(commands: _Commands, name: str, text: str, run: Callable[[argparse.Namespace], None] | None = None) -> _Parser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=run)
    return command


def _add_model(command: _Parser) -> None:
    command.add_argument(
        "-m",
        "--model",
        help="native file, folder or file of official weights, or name; default: the embedded story-34m",
    )
    command.add_argument("--dtype", choices=_DTYPES, help="type of the weights; default: what the file has, or int8")
    command.add_argument("-t", "--threads", type=int, help="default: the physical cores there are")


def _add_bos(command: _Parser, text: str) -> None:
    command.add_argument("--bos", action=argparse.BooleanOptionalAction, default=None, help=text)


# --- generate --------------------------------------------------------------------------------------------------------


def _define_generate(commands: _Commands) -> None:
    command = _add(commands, "generate", "continue a text", _generate)
    option = command.add_argument
    option("prompt", nargs="?", help="text to continue; without it, --file, or standard input if that is no terminal")
    option("-f", "--file", help="read the prompt from a file; - is standard input")
    _add_model(command)
    option("-n", "--max-tokens", type=int, help="how many at most; default: 200, or what the context has room for")
    option("--temperature", type=float, default=0.8, help="above 1 wilder, below tamer, 0 greedy; default: %(default)s")
    option("--top-k", type=int, default=40, help="draw from the K likeliest tokens; 0: all; default: %(default)s")
    option(
        "--top-p",
        type=float,
        default=1.0,
        help="draw from the likeliest tokens that together have probability P; default: %(default)s, all",
    )
    option("--seed", type=int, help="the same seed gives the same text; default: another text each time")
    option("--greedy", action="store_true", help="always take the likeliest token")
    option("--num-samples", type=int, default=1, help="write several texts, with a line of --- between them")
    option(
        "--overflow",
        choices=("error", "truncate_left"),
        default="error",
        help="if the text would outgrow the context: do not start, or forget its beginning; default: %(default)s",
    )
    option("--echo", action="store_true", help="write the prompt too")
    option("-q", "--quiet", action="store_true", help="no line of figures on standard error")
    _add_bos(command, "begin with <|endoftext|>; default: as the model's file says")


def _generate(options: argparse.Namespace) -> None:
    from .generation import random_seed
    from .text import load

    if options.num_samples < 1:
        raise ValueError(f"num-samples is {options.num_samples}; it must be at least 1")
    prompt = _read_prompt(options)
    model = load(options.model, options.dtype, options.threads)
    seed = random_seed() if options.seed is None else options.seed
    for sample in range(options.num_samples):
        stream = model.stream(
            prompt,
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            seed=seed,
            greedy=options.greedy,
            bos=options.bos,
            overflow=options.overflow,
            sample=sample,
        )
        write("---\n" * (sample > 0) + prompt * options.echo)
        try:
            write_pieces(stream)
        finally:
            if not options.quiet:
                note(_figures(model, stream, seed))


def _read_prompt(options: argparse.Namespace) -> str:
    if options.prompt is not None and options.file is not None:
        raise ValueError("a prompt and --file are given; choose one")
    if options.prompt not in (None, "-"):
        return decode(options.prompt.encode(errors="surrogateescape"), "the prompt")
    file = options.prompt or options.file
    if file is None and (sys.stdin is None or sys.stdin.isatty()):
        return ""
    return read_text(file or "-").removesuffix("\n")


def _figures(model: Model, stream: Stream, seed: int) -> str:
    timing = stream.completion.timing
    return (
        f"{timing.prompt_tokens} prompt tokens, prefill {timing.prefill_speed:.1f} tokens/s; "
        f"{timing.new_tokens} new tokens, decode {timing.decode_speed:.1f} tokens/s; "
        f"{model.name} {model.dtype}, {model.n_threads} threads, seed {seed}"
    )


# --- convert, download -----------------------------------------------------------------------------------------------


def _define_convert(commands: _Commands) -> None:
    command = _add(commands, "convert", "make a native file from official weights", _convert)
    command.add_argument(
        "source",
        help="OpenAI folder, Hugging Face folder (safetensors or pytorch_model.bin), GGUF file, or downloaded name",
    )
    command.add_argument("--dtype", choices=_DTYPES, default="int8", help="default: %(default)s")
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        help="file or folder; default: NAME-DTYPE.safetensors where --model finds it by its name",
    )
    command.add_argument("--name", help="name of the model; default: that of the folder")
    command.add_argument(
        "--calibrate",
        action="store_true",
        help="int4 only: balance rounding errors on a text that the model writes itself; takes minutes, a float32 copy "
        "beside the output meanwhile, and memory for about 25 n_inner^2 bytes besides the model",
    )
    command.add_argument(
        "--calibration-text", metavar="FILE", help="calibrate on this text instead; - is standard input"
    )
    _add_bos(command, "whether texts of this model begin with <|endoftext|>; default: no")


def _convert(options: argparse.Namespace) -> None:
    from .formats import open_checkpoint
    from .library import convert_with_progress, file_name, find_source, model_name, models_folder

    source = find_source(options.source)
    checkpoint = open_checkpoint(source)
    name = options.name or (model_name(source) if Path(options.source).exists() else options.source)
    output = options.output or models_folder()
    if output.is_dir() or options.output is None:
        output /= file_name(name, options.dtype)
    convert_with_progress(
        checkpoint,
        options.dtype,
        output,
        name=name,
        bos=bool(options.bos),
        calibrate=options.calibrate or options.calibration_text is not None,
        text=None if options.calibration_text is None else read_text(options.calibration_text),
    )
    write(f"{printable(str(output))}\n")


def _define_download(commands: _Commands) -> None:
    command = _add(commands, "download", "fetch official weights from the hub and convert them", _download)
    command.add_argument("name", help="gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or OWNER/REPO")
    command.add_argument("--dtype", choices=_DTYPES, default="int8", help="default: %(default)s")


def _download(options: argparse.Namespace) -> None:
    from .download import fetch
    from .formats import open_checkpoint
    from .library import convert_with_progress, file_name, models_folder

    checkpoint = open_checkpoint(fetch(options.name))
    output = models_folder() / file_name(options.name, options.dtype)
    convert_with_progress(checkpoint, options.dtype, output, name=options.name)
    write(f"{printable(str(output))}\n")


# --- info, warmup ----------------------------------------------------------------------------------------------------


def _define_info(commands: _Commands) -> None:
    command = _add(commands, "info", "say what a model is and what would run it", _info)
    command.add_argument("model", nargs="?", help="as for generate; default: the embedded model")
    command.add_argument("--dtype", choices=_DTYPES, help="as for generate")


def _info(options: argparse.Namespace) -> None:
    from .about import describe
    from .library import open_model

    for name, value in describe(open_model(options.model, options.dtype)).items():
        write(f"{name:12} {printable(value)}\n")


def _define_warmup(commands: _Commands) -> None:
    command = _add(commands, "warmup", "compile the kernels ahead of their first use", _warmup)
    command.add_argument("--dtype", choices=_DTYPES, action="append", help="may be repeated; default: int8")


def _warmup(options: argparse.Namespace) -> None:
    from .runtime import find_object, load_kernels

    for dtype in options.dtype or ["int8"]:
        load_kernels(dtype)
        write(f"{find_object(dtype).path}\n")


# --- eval ------------------------------------------------------------------------------------------------------------


def _define_eval(commands: _Commands) -> None:
    measures = _add(commands, "eval", "measure a model").add_subparsers(
        title="measures", metavar="MEASURE", required=True
    )
    command = _add(measures, "perplexity", "perplexity of a text", _perplexity)
    command.add_argument("file", help="the text, UTF-8; - is standard input")
    _add_model(command)
    command.add_argument(
        "--protocol",
        choices=("llama.cpp", "strided"),
        default="llama.cpp",
        help="llama.cpp: score the second half of windows that do not overlap; strided: Hugging Face's recipe; "
        "default: %(default)s",
    )
    command.add_argument("--window", type=int, help="tokens read at once; default: the context")
    command.add_argument("--stride", type=int, help="tokens between windows (strided); default: half a window")
    _add_bos(command, "put <|endoftext|> in place of each window's first token; default: as the model's file says")


def _perplexity(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from .evaluation import perplexity
    from .text import load

    text = read_text(options.file)
    model = load(options.model, options.dtype, options.threads)
    ids = model.tokenizer.encode(text)
    bos = model.weights.bos if options.bos is None else options.bos
    with tqdm(unit="window", desc="perplexity", file=sys.stderr, delay=0.5, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = perplexity(
            model.engine,
            ids,
            options.protocol,
            options.window,
            options.stride,
            model.tokenizer.eos_id if bos else None,
            progress,
        )
    write(f"model           {printable(model.name)} {model.dtype}\n")
    write(f"protocol        {result.protocol}\n")
    write(f"window          {result.window}\n")
    write(f"stride          {result.stride}\n")
    write(f"tokens scored   {result.n_scored}\n")
    write(f"NLL             {result.nll:.6f} nats a token\n")
    write(f"perplexity      {result.perplexity:.4f} +/- {result.standard_error:.4f}\n")


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
