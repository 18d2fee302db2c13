"""`compress` and `decompress`: files made small by the model's knowledge of their language."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .parser import add, add_model, load_model
from .terminal import note

if TYPE_CHECKING:
    from .parser import Commands

SUFFIX = ".nbgpt"


def define_compress(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "compress", "make a file small without loss; text of the model's language best", _compress)
    command.add_argument("file", help="any file; - is standard input")
    _add_output(command, f"FILE{SUFFIX}")
    command.add_argument(
        "--chunk-size",
        metavar="N",
        type=int,
        help="tokens of a chunk; small ones decompress faster, side by side, and take more bytes; default: 4096",
    )
    add_model(command)


def define_decompress(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "decompress", "give back the file that `compress` has read", _decompress)
    command.add_argument("file", help="a file that `compress` has written; - is standard input")
    _add_output(command, f"FILE without {SUFFIX}")
    command.add_argument("--chunk", metavar="I", type=int, help="this chunk alone, counted from 0; default: all")
    add_model(command)


def _add_output(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "-o", "--output", help=f"- is standard output; default: {default}, or - if standard input is read"
    )


def _compress(options: argparse.Namespace) -> None:
    from ..compression.codec import CHUNK_SIZE, compress

    output = options.output or ("-" if options.file == "-" else options.file + SUFFIX)
    data = _read(options.file)
    model = load_model(options)
    size = CHUNK_SIZE if options.chunk_size is None else options.chunk_size
    started = time.perf_counter()
    packed = _with_bar(
        "compress", lambda show: compress(model.engine, model.tokenizer, data, chunk_size=size, progress=show)
    )
    _write(output, packed)
    _summarize(len(data), len(packed), data, time.perf_counter() - started)


def _decompress(options: argparse.Namespace) -> None:
    from ..compression.codec import decompress
    from ..compression.container import Container

    output = options.output or _output_of(options.file)
    packed = _read(options.file)
    Container.from_bytes(packed)  # a damaged file is refused before a model is loaded
    model = load_model(options)
    started = time.perf_counter()
    data = _with_bar(
        "decompress", lambda show: decompress(model.engine, model.tokenizer, packed, chunk=options.chunk, progress=show)
    )
    _write(output, data)
    _summarize(len(packed), len(data), data, time.perf_counter() - started)


def _output_of(file: str) -> str:
    """Where a decompressed file goes if nothing is said."""
    if file != "-" and not (file.endswith(SUFFIX) and Path(file).name != SUFFIX):
        raise ValueError(f"{file} does not end in {SUFFIX}: say where to write, with -o")
    return file.removesuffix(SUFFIX)


def _read(file: str) -> bytes:
    if file != "-":
        return Path(file).read_bytes()
    return sys.stdin.buffer.read() if sys.stdin else b""


def _write(output: str, data: bytes) -> None:
    """Write the whole file or none."""
    from ..paths import whole_file

    if output != "-":
        with whole_file(Path(output)) as file:
            file.write(data)
        return
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except OSError as error:
        error.filename = "standard output"
        raise


def _with_bar(name: str, run: Callable[[Callable[[int, int], object]], bytes]) -> bytes:
    """What `run` returns; it is given what shows progress: how many more tokens are done, and how many there are."""
    from tqdm import tqdm

    with tqdm(unit="token", desc=name, file=sys.stderr, delay=0.5, disable=None) as bar:

        def show(n: int, total: int) -> None:
            bar.total = total
            bar.update(n)

        return run(show)


def _summarize(n_in: int, n_out: int, data: bytes, seconds: float) -> None:
    bits = 8 * min(n_in, n_out) / max(1, len(data))
    note(f"{n_in} bytes in, {n_out} out, {bits:.3f} bits a byte, {seconds:.1f} s")
