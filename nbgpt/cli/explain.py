"""`explain`: write the explain page of a text."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..partial import whole_file
from .parser import add, add_bos, add_model, load_model
from .terminal import decode, note, printable, read_text, write

if TYPE_CHECKING:
    from ..analysis.explain.live import Explainer
    from .parser import Commands

_NAME = "explain.html"


def define_explain(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "explain", "show what the model does to a text, as a page for a browser", _explain)
    command.add_argument("text", help="1024 tokens at most; - is standard input")
    add_model(command)
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="file for the page, which is replaced; - is standard output; default: standard output, or if that is a "
        f"terminal {_NAME}, which is never replaced",
    )
    command.add_argument(
        "--serve",
        action="store_true",
        help="write no file but serve the page on 127.0.0.1, where it computes what a file cannot hold",
    )
    command.add_argument("--port", type=int, help="with --serve; default: one that is free")
    add_bos(command, "begin with <|endoftext|>; default: as the model's file says")


def _explain(options: argparse.Namespace) -> None:
    from ..analysis.explain import check_length, page, switched_off
    from ..analysis.explain.live import Explainer

    _check(options)
    output = "" if options.serve else _output(options.output)
    if options.text == "-":
        text = read_text("-").removesuffix("\n")
    else:
        text = decode(options.text.encode(errors="surrogateescape"), "the text")
    model = load_model(options)
    check_length(len(model.encode(text, options.bos)))  # before a long text is traced
    trace = model.trace(text, bos=options.bos)
    ablations = switched_off(model.engine, model.tokenizer, trace)
    whole = page(trace, printable(f"{model.name} {model.dtype}"), ablations, live=options.serve)
    if options.serve:
        _serve(whole, Explainer(model.engine, model.tokenizer, trace), options.port or 0)
    elif output == "-":
        write(whole)
    else:
        with whole_file(Path(output)) as file:
            file.write(whole.encode())
        write(f"{printable(output)}\n")


def _check(options: argparse.Namespace) -> None:
    """Raise ValueError for options that do not go together, or a port that does not exist."""
    if options.serve and options.output is not None:
        raise ValueError("--serve writes no file: leave --output out")
    if options.port is not None and not options.serve:
        raise ValueError("--port is for --serve, which is not given")
    if options.port is not None and not 0 <= options.port <= 65535:
        raise ValueError(f"--port is {options.port}; it must be from 0 to 65535")


def _serve(page: str, explainer: Explainer, port: int) -> None:
    """Serve a page until the user interrupts."""
    from ..analysis.explain.live import HOST, Server

    try:
        serving = Server(page, explainer, port)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"port {port} of {HOST}") from None
    with serving:
        write(f"http://{HOST}:{serving.server_port}/\n")
        note("Ctrl-C ends it")
        serving.serve_forever()


def _output(chosen: str | None) -> str:
    """The file to write, "-" for standard output; a terminal gets a file instead."""
    if chosen is not None:
        return chosen
    if sys.stdout is None or not sys.stdout.isatty():
        return "-"
    if Path(_NAME).exists():
        raise ValueError(f"{_NAME} is here already: choose a file with -o")
    return _NAME
