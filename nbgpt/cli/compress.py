"""`compress` and `decompress`: files made small by what the model knows of their language."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..progress import counting
from .parser import add, add_model, load_model
from .terminal import note

if TYPE_CHECKING:
    from .parser import Commands, Parser

SUFFIX = ".nbgpt"


def define_compress(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "compress", "compress a file without loss; best for text like the model's", _compress)
    command.add_argument("file", help="any file; - is standard input")
    _add_output(command, f"FILE{SUFFIX}")
    command.add_argument(
        "--chunk-size",
        metavar="N",
        type=int,
        help="tokens of a chunk; chunks are decompressed side by side, so that smaller ones take less time and more "
        "space; default: 4096",
    )
    add_model(command)


def define_decompress(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "decompress", "restore a file that `compress` has made smaller", _decompress)
    command.add_argument("file", help="a file that `compress` has written; - is standard input")
    _add_output(command, f"FILE without {SUFFIX}, - for a chunk")
    command.add_argument("--chunk", metavar="I", type=int, help="this chunk alone, counted from 0; default: all")
    add_model(command)


def _add_output(command: Parser, default: str) -> None:
    text = f"- is standard output; default: {default}, and - for standard input"
    command.add_argument("-o", "--output", metavar="FILE", help=text)
    command.add_argument("--force", action="store_true", help="replace the file if there is one of this name")


def _compress(options: argparse.Namespace) -> None:
    from ..compression.codec import CHUNK_SIZE, compress

    output = options.output or ("-" if options.file == "-" else options.file + SUFFIX)
    if output == "-" and sys.stdout is not None and sys.stdout.isatty():
        raise ValueError("standard output is a terminal, which cannot show a compressed file: give a name with -o")
    data = _read(options.file)
    with _create(output, options.force) as file:
        model, started = load_model(options), time.perf_counter()
        size = CHUNK_SIZE if options.chunk_size is None else options.chunk_size
        with counting("compress", "token") as progress:
            packed = compress(model.engine, model.tokenizer, data, chunk_size=size, progress=progress)
        file.write(packed)
    _summarize(len(data), len(packed), 8 * len(packed) / max(1, len(data)), started)


def _decompress(options: argparse.Namespace) -> None:
    from ..compression.codec import decompress
    from ..compression.container import Container

    packed = _read(options.file)
    container = Container.from_bytes(packed)  # a damaged file is refused before a model is loaded
    name = options.output or ("-" if options.chunk is not None else _output_of(options.file))
    with _create(name, options.force) as output:
        model, started = load_model(options), time.perf_counter()
        with counting("decompress", "token") as progress:
            data = decompress(model.engine, model.tokenizer, packed, chunk=options.chunk, progress=progress)
        output.write(data)
    _summarize(len(packed), len(data), 8 * len(packed) / max(1, container.n_bytes), started)


def _output_of(file: str) -> str:
    """Where a decompressed file goes if nothing is said."""
    if file != "-" and not (file.endswith(SUFFIX) and Path(file).name != SUFFIX):
        raise ValueError(f"the name {file!r} does not end in {SUFFIX}: say with -o where to write")
    return file.removesuffix(SUFFIX)


def _read(file: str) -> bytes:
    if file != "-":
        return Path(file).read_bytes()
    return sys.stdin.buffer.read() if sys.stdin else b""


@contextmanager
def _create(output: str, is_forced: bool) -> Iterator[BinaryIO]:
    """A file that takes its name when it is whole, or standard output. Raises ValueError rather than replace a file."""
    from ..partial import whole_file

    if output != "-":
        if Path(output).is_file() and not is_forced:
            raise ValueError(f"{output} is there already: give another name with -o, or --force")
        with whole_file(Path(output)) as file:
            yield file
        return
    try:
        yield sys.stdout.buffer
        sys.stdout.flush()
    except OSError as error:
        error.filename = error.filename or "standard output"
        raise


def _summarize(n_in: int, n_out: int, bits: float, started: float) -> None:
    seconds = time.perf_counter() - started
    note(f"{n_in} bytes in, {n_out} out, {bits:.3f} bits a byte, {seconds:.1f} s")
