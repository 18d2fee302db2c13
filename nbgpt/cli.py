"""The command line: one thin function a subcommand, which imports what it needs when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

_DTYPES = ("float32", "float16", "int8", "int4")
_EXAMPLES = """\
examples:
  python -m nbgpt generate "It was a dark and stormy night"
  echo "Once upon a time" | python -m nbgpt generate --max-tokens 50 --seed 1
  python -m nbgpt download gpt2 && python -m nbgpt generate --model gpt2 "Alan Turing"
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"nbgpt: {message}; `{self.prog} --help` explains\n")


def _new_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m nbgpt",
        description="GPT-2 on CPUs: official weights in, text out.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for define in (_define_generate, _define_convert, _define_download, _define_info, _define_eval, _define_warmup):
        define(commands)
    return parser


def _add(commands: argparse._SubParsersAction, name: str, run: Callable[..., int], text: str) -> _Parser:  # type: ignore[type-arg]
    command: _Parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=run)
    return command


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("-m", "--model", help="native file, folder or file of official weights, or name; default: the embedded story-34m")
    command.add_argument("--dtype", choices=_DTYPES, help="type of the weights; default: what the file has, or int8")
    command.add_argument("-t", "--threads", type=int, help="default: the physical cores there are")


def _add_bos(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--bos", action=argparse.BooleanOptionalAction, default=None, help=text)


# --- generate --------------------------------------------------------------------------------------------------------


def _define_generate(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    command = _add(commands, "generate", _generate, "continue a text")
    command.add_argument("prompt", nargs="?", help="text to continue; without it, --file or standard input if that is no terminal")
    command.add_argument("-f", "--file", help="read the prompt from a file; - is standard input")
    _add_model(command)
    command.add_argument("-n", "--max-tokens", type=int, help="stop after so many tokens; default: 200 or what the context has room for")
    command.add_argument("--temperature", type=float, default=0.8, help="above 1 wilder, below 1 tamer, 0 greedy; default: %(default)s")
    command.add_argument("--top-k", type=int, default=40, help="draw from the K likeliest tokens; 0: from all; default: %(default)s")
    command.add_argument("--top-p", type=float, default=1.0, help="draw from the likeliest tokens that together have probability P; default: %(default)s, all")
    command.add_argument("--seed", type=int, help="the same seed gives the same text; default: another text each time")
    command.add_argument("--greedy", action="store_true", help="always take the likeliest token")
    command.add_argument("--num-samples", type=int, default=1, help="write several texts, with a line of --- between them")
    command.add_argument("--overflow", choices=("error", "truncate_left"), default="error", help="when the text outgrows the context: stop before it starts, or forget its beginning; default: %(default)s")
    command.add_argument("--echo", action="store_true", help="write the prompt too")
    command.add_argument("-q", "--quiet", action="store_true", help="no line of figures on standard error")
    _add_bos(command, "begin with <|endoftext|>; default: as the model's file says")


def _read_prompt(options: argparse.Namespace) -> str:
    if options.prompt is not None and options.file is not None:
        raise ValueError("a prompt and --file are given; choose one")
    if options.prompt not in (None, "-"):
        return str(options.prompt)
    if options.file not in (None, "-"):
        data, where = Path(options.file).read_bytes(), options.file
    elif options.file == "-" or options.prompt == "-" or not sys.stdin.isatty():
        data, where = sys.stdin.buffer.read(), "standard input"
    else:
        return ""
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8: byte {data[error.start]:#04x} at {error.start}") from None


def _generate(options: argparse.Namespace) -> int:
    import secrets

    from .text import load

    if options.num_samples < 1:
        raise ValueError(f"num_samples is {options.num_samples}; it must be at least 1")
    prompt = _read_prompt(options)
    model = load(options.model, options.dtype, options.threads)
    seed = secrets.randbits(32) if options.seed is None else options.seed
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
        print("---\n" * (sample > 0) + prompt * options.echo, end="", flush=True)
        last = ""
        try:
            for piece in stream:
                print(piece, end="", flush=True)
                last = piece
        finally:
            if not last.endswith("\n"):
                print(flush=True)
            if not options.quiet:
                timing = stream.completion.timing
                print(
                    f"nbgpt: {timing.prompt_tokens} prompt tokens, prefill {timing.prefill_speed:.1f} tokens/s; "
                    f"{timing.new_tokens} new tokens, decode {timing.decode_speed:.1f} tokens/s; "
                    f"{model.name} {model.dtype}, {model.n_threads} threads, seed {seed}",
                    file=sys.stderr,
                )
    return 0


# --- convert, download -----------------------------------------------------------------------------------------------


def _define_convert(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    command = _add(commands, "convert", _convert, "make a native file from official weights")
    command.add_argument("source", type=Path, help="OpenAI folder, Hugging Face folder (safetensors or pytorch_model.bin), or GGUF file")
    command.add_argument("--dtype", choices=_DTYPES, default="int8", help="default: %(default)s")
    command.add_argument("-o", "--output", type=Path, help="default: NAME-DTYPE.safetensors where --model finds it by its name")
    command.add_argument("--name", help="name of the model; default: that of the folder")
    _add_bos(command, "whether texts of this model begin with <|endoftext|>; default: no")


def _convert(options: argparse.Namespace) -> int:
    from .formats import open_checkpoint
    from .library import convert_with_progress, file_name, models_folder

    source = options.source
    checkpoint = open_checkpoint(source)
    name = options.name or (source.resolve().name if source.is_dir() else source.stem)
    output = options.output or models_folder() / file_name(name, options.dtype)
    convert_with_progress(checkpoint, options.dtype, output, name=name, bos=bool(options.bos))
    print(output)
    return 0


def _define_download(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    command = _add(commands, "download", _download, "fetch official weights from the hub and convert them")
    command.add_argument("name", help="gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, or OWNER/REPO")
    command.add_argument("--dtype", choices=_DTYPES, default="int8", help="default: %(default)s")


def _download(options: argparse.Namespace) -> int:
    from .download import fetch
    from .formats import open_checkpoint
    from .library import convert_with_progress, file_name, models_folder

    checkpoint = open_checkpoint(fetch(options.name))
    output = models_folder() / file_name(options.name, options.dtype)
    convert_with_progress(checkpoint, options.dtype, output, name=options.name)
    print(output)
    return 0


# --- info, warmup ----------------------------------------------------------------------------------------------------


def _define_info(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    command = _add(commands, "info", _info, "say what a model is and what would run it")
    command.add_argument("model", nargs="?", help="as for generate; default: the embedded model")
    command.add_argument("--dtype", choices=_DTYPES, help="as for generate")


def _info(options: argparse.Namespace) -> int:
    from .about import describe
    from .library import open_model

    for name, value in describe(open_model(options.model, options.dtype)).items():
        print(f"{name:12} {value}")
    return 0


def _define_warmup(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    command = _add(commands, "warmup", _warmup, "compile the kernels ahead of their first use")
    command.add_argument("--dtype", choices=_DTYPES, action="append", help="may be repeated; default: int8")


def _warmup(options: argparse.Namespace) -> int:
    from .runtime import find_object, load_kernels

    for dtype in options.dtype or ["int8"]:
        load_kernels(dtype)
        print(find_object(dtype).path)
    return 0


# --- eval ------------------------------------------------------------------------------------------------------------


def _define_eval(commands: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    evaluate = _add(commands, "eval", lambda options: 2, "measure a model")
    kinds = evaluate.add_subparsers(title="measures", metavar="MEASURE", required=True)
    command = _add(kinds, "perplexity", _perplexity, "perplexity of a text")
    command.add_argument("file", type=Path, help="the text, UTF-8")
    _add_model(command)
    command.add_argument("--protocol", choices=("llama.cpp", "strided"), default="llama.cpp", help="llama.cpp: score the second half of windows that do not overlap; strided: Hugging Face's recipe; default: %(default)s")
    command.add_argument("--window", type=int, help="tokens read at once; default: the context")
    command.add_argument("--stride", type=int, help="tokens between windows (strided); default: half a window")
    _add_bos(command, "put <|endoftext|> in place of each window's first token; default: as the model's file says")


def _perplexity(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from .evaluation import perplexity
    from .text import load

    try:
        text = options.file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{options.file} is not UTF-8: {error.reason} at byte {error.start}") from None
    model = load(options.model, options.dtype, options.threads)
    ids = model.tokenizer.encode(text)
    bos = model.weights.bos if options.bos is None else options.bos
    with tqdm(unit="window", desc="perplexity", file=sys.stderr, delay=0.5) as bar:

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
    print(f"model           {model.name} {model.dtype}")
    print(f"protocol        {result.protocol}")
    print(f"window          {result.window}")
    print(f"stride          {result.stride}")
    print(f"tokens scored   {result.n_scored}")
    print(f"NLL             {result.nll:.6f} nats a token")
    print(f"perplexity      {result.perplexity:.4f} +/- {result.standard_error:.4f}")
    return 0


# --- main ------------------------------------------------------------------------------------------------------------


def _one_line(error: BaseException) -> str:
    """The message without line breaks and control characters, which a hostile file may have put there."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 nobody reads."""
    from .download import DownloadError
    from .formats import FormatError
    from .runtime import KernelError

    options = _new_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit does not complain too
        return 141
    except (FormatError, DownloadError, KernelError) as error:
        print(f"nbgpt: {_one_line(error)}", file=sys.stderr)
        return 1
    except OSError as error:
        named = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else _one_line(error)
        print(f"nbgpt: {named}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"nbgpt: {_one_line(error)}", file=sys.stderr)
        return 2
